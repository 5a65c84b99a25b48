// SPDX-License-Identifier: GPL-2.0
/*
 * Wire to plain: whole frames are authenticated, decrypted where they lie, and
 * only then is anything done with them.
 *
 * The buffer is one largest frame long. Received bytes are appended at in_end;
 * a frame that is complete is opened in place and its text [out, out_end) sent
 * before the next one is looked at; a frame that is not stays at the front of
 * the buffer until its rest has come. Nothing is allocated by the word of the
 * peer: a header is checked as soon as its four bytes are there, and what it
 * announces always fits.
 *
 * This direction owns the sending side of the plain leg, and so also says the
 * last word there: a FIN after the peer's FIN and all bytes, an RST otherwise.
 */
#include "internal.h"

static enum stcp_next stcp_open_bad(struct stcp_direction *d, int err)
{
	stcp_relay_break(d->relay, STCP_END_BAD_FRAME, err);
	return STCP_NEXT_MORE;
}

static enum stcp_next stcp_open_truncated(struct stcp_direction *d, int err)
{
	stcp_relay_break(d->relay, STCP_END_TRUNCATED, err);
	return STCP_NEXT_MORE;
}

/* The plain leg is gone; only the peer is left to be told. */
static enum stcp_next stcp_open_plain_reset(struct stcp_direction *d, int err)
{
	stcp_relay_reset(d->relay, STCP_END_PLAIN_RESET, err,
			 STCP_CODE_PLAIN_RESET, NULL, 0);
	return STCP_NEXT_MORE;
}

/* Everything a header can say wrong. */
static bool stcp_header_valid(const struct stcp_direction *d, const u8 *header)
{
	u16 length = get_unaligned_be16(header + 2);

	if (header[1] || length < STCP_MIN_LENGTH || length > STCP_MAX_LENGTH)
		return false;
	switch (header[0]) {
	case STCP_FRAME_DATA:
		return !d->fin;
	case STCP_FRAME_FIN:
		return !d->fin && length == STCP_TAG_LEN;
	case STCP_FRAME_RESET:
		return length >= STCP_TAG_LEN + STCP_CODE_LEN &&
		       length <= STCP_TAG_LEN + STCP_CODE_LEN + STCP_MAX_TEXT;
	default:
		return false;
	}
}

/* A whole frame is at @d->in. */
static enum stcp_next stcp_open_frame(struct stcp_direction *d, u32 length)
{
	u8 *frame = d->buffer + d->in;
	u8 *text = frame + STCP_HEADER_LEN;
	u32 len = length - STCP_TAG_LEN;
	int err = stcp_cipher_open(&d->cipher, frame, length);

	if (err) {
		stcp_relay_break(d->relay, stcp_cipher_blame(err), err);
		return STCP_NEXT_MORE;
	}
	stcp_stat_add(sock_net(d->relay->wire->sk), STCP_STAT_FRAMES_OPENED, 1);
	d->in += STCP_HEADER_LEN + length;
	switch (frame[0]) {
	case STCP_FRAME_DATA:
		d->out = text - d->buffer;
		d->out_end = d->out + len;
		break;
	case STCP_FRAME_FIN:
		d->fin = true;
		break;
	case STCP_FRAME_RESET:
		stcp_relay_peer_reset(d->relay, get_unaligned_be16(text),
				      text + STCP_CODE_LEN, len - STCP_CODE_LEN);
		break;
	}
	return STCP_NEXT_MORE;
}

static u32 stcp_have(const struct stcp_direction *d)
{
	return d->in_end - d->in;
}

/* Is there a whole frame at @d->in? */
static bool stcp_whole_frame(const struct stcp_direction *d)
{
	return stcp_have(d) >= STCP_HEADER_LEN &&
	       stcp_have(d) - STCP_HEADER_LEN >=
			get_unaligned_be16(d->buffer + d->in + 2);
}

/* Will there be text to send straight after this? Then TCP may wait for it. */
static bool stcp_text_follows(const struct stcp_direction *d)
{
	return stcp_whole_frame(d) &&
	       d->buffer[d->in] == STCP_FRAME_DATA &&
	       get_unaligned_be16(d->buffer + d->in + 2) > STCP_TAG_LEN;
}

/* Bring what is not opened yet to the front, so that a whole frame fits. */
static void stcp_open_compact(struct stcp_direction *d)
{
	if (!d->in)
		return;
	if (stcp_have(d))
		memmove(d->buffer, d->buffer + d->in, stcp_have(d));
	d->in_end = stcp_have(d);
	d->in = 0;
	d->out = 0;
	d->out_end = 0;
}

/*
 * The wire has no more bytes. That is truncation, unless FIN has come and the
 * other direction can still be sent.
 */
static enum stcp_next stcp_open_end(struct stcp_direction *d, int err)
{
	const struct stcp_direction *seal = &d->relay->seal;

	/* Pairs with stcp_seal_broken(): its error. */
	if (smp_load_acquire(&seal->broken))
		return stcp_open_truncated(d, seal->error);
	if (!d->fin || stcp_have(d) || err)
		return stcp_open_truncated(d, err);
	if (stcp_leg_broken(d->from))
		return stcp_open_truncated(d, READ_ONCE(d->from->sk->sk_err));
	return STCP_NEXT_SETTLED;
}

static enum stcp_next stcp_open_recv(struct stcp_direction *d)
{
	int n;

	stcp_open_compact(d);
	n = stcp_direction_recv(d, d->in_end, STCP_MAX_FRAME - d->in_end);
	if (n > 0) {
		d->in_end += n;
		return STCP_NEXT_MORE;
	}
	if (!n || stcp_recv_next(n) == STCP_NEXT_SETTLED)
		return stcp_open_end(d, n);
	/* The peer's FIN came and all before it was delivered. */
	if (n == -EAGAIN && d->fin)
		return STCP_NEXT_SETTLED;
	return stcp_recv_next(n);
}

static enum stcp_next stcp_open_run(struct stcp_direction *d)
{
	enum stcp_next next;
	int err = 0;

	if (stcp_leg_broken(d->to))
		return stcp_open_plain_reset(d, READ_ONCE(d->to->sk->sk_err));
	next = stcp_direction_send(d, &err, stcp_text_follows(d));
	if (err)
		return stcp_open_plain_reset(d, err);
	if (next != STCP_NEXT_MORE)
		return next;
	if (d->fin && !d->fin_passed) {
		d->fin_passed = true;
		stcp_leg_shutdown(d->to);
		stcp_relay_progress(d->relay);
		stcp_relay_half_closed(d->relay);
	}
	if (stcp_have(d) >= STCP_HEADER_LEN) {
		const u8 *header = d->buffer + d->in;

		if (!stcp_header_valid(d, header))
			return stcp_open_bad(d, -EPROTO);
		if (stcp_whole_frame(d))
			return stcp_open_frame(d, get_unaligned_be16(header + 2));
	}
	return stcp_open_recv(d);
}

/* RESET is on its way to the peer: read until it ends the stream too. */
static enum stcp_next stcp_open_reset(struct stcp_direction *d)
{
	int n;

	/* Once: where tcp_abort() does not look, it would wake us for ever. */
	if (inet_sk_state_load(d->to->sk) != TCP_CLOSE)
		tcp_abort(d->to->sk, ECONNRESET);
	d->out = 0;
	d->out_end = 0;
	d->in = 0;
	d->in_end = 0;
	n = stcp_direction_recv(d, 0, STCP_MAX_FRAME);
	if (n > 0)
		return STCP_NEXT_MORE;
	return n ? stcp_recv_next(n) : STCP_NEXT_SETTLED;
}

static enum stcp_next stcp_open_break(struct stcp_direction *d)
{
	tcp_abort(d->to->sk, ECONNRESET);
	d->out = d->out_end;
	d->in = d->in_end;
	return STCP_NEXT_SETTLED;
}

enum stcp_next stcp_open_step(struct stcp_direction *d)
{
	switch (d->mode) {
	case STCP_MODE_BREAK:
		if (READ_ONCE(d->settled))
			return STCP_NEXT_WAIT;
		return stcp_open_break(d);
	case STCP_MODE_RESET:
		if (READ_ONCE(d->settled))
			return STCP_NEXT_WAIT;
		return stcp_open_reset(d);
	default:
		/* Even after FIN: the peer may still send RESET, or vanish. */
		return stcp_open_run(d);
	}
}
