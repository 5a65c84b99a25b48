// SPDX-License-Identifier: GPL-2.0
/*
 * Wire to plain: whole frames are authenticated, decrypted where they lie, and
 * only then is anything done with them.
 *
 * One frame is received at a time, first its header, then exactly what that
 * announces, so a frame starts at the front of the buffer. It is opened in place
 * and its text [out, out_end) sent before the next one is received. Nothing is
 * allocated by the word of the peer: a header is checked as soon as its four bytes
 * are there, and pages are taken only for bytes that have come.
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

/* Everything a header can say wrong. @fin: the peer's FIN was received. */
bool stcp_header_valid(const u8 *header, bool fin)
{
	u16 length = get_unaligned_be16(header + 2);

	if (header[1] || length < STCP_MIN_LENGTH || length > STCP_MAX_LENGTH)
		return false;
	switch (header[0]) {
	case STCP_FRAME_DATA:
		return !fin;
	case STCP_FRAME_FIN:
		return !fin && length == STCP_TAG_LEN;
	case STCP_FRAME_RESET:
		return length >= STCP_TAG_LEN + STCP_CODE_LEN &&
		       length <= STCP_TAG_LEN + STCP_CODE_LEN + STCP_MAX_TEXT;
	default:
		return false;
	}
}

static u32 stcp_frame_length(const struct stcp_direction *d)
{
	u8 header[STCP_HEADER_LEN];

	stcp_buffer_read(&d->buffer, 0, header, sizeof(header));
	return get_unaligned_be16(header + 2);
}

/* A frame, its header first. What a bad header announces is not received. */
u32 stcp_open_want(const struct stcp_direction *d)
{
	u8 header[STCP_HEADER_LEN];

	/* After a RESET of ours all is read and thrown away. */
	if (d->mode != STCP_MODE_RUN)
		return STCP_MAX_FRAME;
	/* What follows belongs to the next connection. */
	if (stcp_wire_over(d))
		return 0;
	if (d->in_end < STCP_HEADER_LEN)
		return STCP_HEADER_LEN;
	stcp_buffer_read(&d->buffer, 0, header, sizeof(header));
	if (!stcp_header_valid(header, d->fin))
		return d->in_end;
	return STCP_HEADER_LEN + get_unaligned_be16(header + 2);
}

static void stcp_open_peer_reset(struct stcp_direction *d, u32 len)
{
	u8 code[STCP_CODE_LEN], text[STCP_MAX_TEXT];

	stcp_buffer_read(&d->buffer, STCP_HEADER_LEN, code, sizeof(code));
	len -= STCP_CODE_LEN;
	stcp_buffer_read(&d->buffer, STCP_HEADER_LEN + STCP_CODE_LEN, text, len);
	stcp_relay_peer_reset(d->relay, get_unaligned_be16(code), text, len);
}

/* A whole frame is in the buffer. */
static enum stcp_next stcp_open_frame(struct stcp_direction *d)
{
	u32 length = stcp_frame_length(d), len = length - STCP_TAG_LEN;
	int err = stcp_cipher_open(&d->cipher, &d->buffer, length);
	u8 type;

	if (err) {
		stcp_relay_break(d->relay, stcp_cipher_blame(err), err);
		return STCP_NEXT_MORE;
	}
	stcp_stat_add(sock_net(d->relay->wire->sk), STCP_STAT_FRAMES_OPENED, 1);
	d->in_end = 0;
	stcp_buffer_read(&d->buffer, 0, &type, sizeof(type));
	switch (type) {
	case STCP_FRAME_DATA:
		d->out = STCP_HEADER_LEN;
		d->out_end = d->out + len;
		break;
	case STCP_FRAME_FIN:
		d->fin = true;
		break;
	case STCP_FRAME_RESET:
		stcp_open_peer_reset(d, len);
		break;
	}
	return STCP_NEXT_MORE;
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
	if (!d->fin || d->in_end || err)
		return stcp_open_truncated(d, err);
	if (stcp_leg_broken(d->from))
		return stcp_open_truncated(d, READ_ONCE(d->from->sk->sk_err));
	return STCP_NEXT_SETTLED;
}

static enum stcp_next stcp_open_recv(struct stcp_direction *d)
{
	int n = stcp_direction_recv(d);

	if (n > 0)
		return STCP_NEXT_MORE;
	/* Our FIN may have left since the last look. */
	if (stcp_wire_over(d))
		return STCP_NEXT_SETTLED;
	if (!n || stcp_recv_next(n) == STCP_NEXT_SETTLED)
		return stcp_open_end(d, n);
	/* The peer's FIN came and all before it was delivered. */
	if (n == -EAGAIN && d->fin && !d->relay->keep)
		return STCP_NEXT_SETTLED;
	return stcp_recv_next(n);
}

/*
 * Send text to the plain leg. Where only the peer's FIN is left to come and stands
 * there already, the last text goes beyond the send buffer: an application that
 * reads slowly must not hold up the next connection of the wire leg.
 */
static enum stcp_next stcp_open_send(struct stcp_direction *d, int *error)
{
	enum stcp_next next = stcp_direction_send(d, error, d->follows);

	if (next != STCP_NEXT_WAIT || !stcp_may_go_beyond(d) || !stcp_fin_waits(d))
		return next;
	d->beyond = true;
	next = stcp_direction_send(d, error, false);
	d->beyond = false;
	return next;
}

static enum stcp_next stcp_open_run(struct stcp_direction *d)
{
	enum stcp_next next;
	u8 header[STCP_HEADER_LEN];
	int err = 0;

	if (stcp_leg_broken(d->to))
		return stcp_open_plain_reset(d, READ_ONCE(d->to->sk->sk_err));
	next = stcp_open_send(d, &err);
	if (err)
		return stcp_open_plain_reset(d, err);
	if (next != STCP_NEXT_MORE)
		return next;
	if (d->fin && !d->fin_passed) {
		if (!stcp_leg_shutdown(d->to))
			return STCP_NEXT_WAIT;
		d->fin_passed = true;
		stcp_relay_progress(d->relay);
		stcp_relay_half_closed(d->relay);
	}
	if (stcp_wire_over(d))
		return STCP_NEXT_SETTLED;
	if (d->in_end >= STCP_HEADER_LEN) {
		stcp_buffer_read(&d->buffer, 0, header, sizeof(header));
		if (!stcp_header_valid(header, d->fin))
			return stcp_open_bad(d, -EPROTO);
		if (d->in_end == stcp_open_want(d))
			return stcp_open_frame(d);
	}
	return stcp_open_recv(d);
}

/* RESET is on its way to the peer: read until it ends the stream too. */
static enum stcp_next stcp_open_reset(struct stcp_direction *d)
{
	int n;

	if (!stcp_leg_abort(d->to, ECONNRESET))
		return STCP_NEXT_WAIT;
	d->out = d->out_end;
	d->in_end = 0;
	n = stcp_direction_recv(d);
	d->in_end = 0;
	if (n > 0)
		return STCP_NEXT_MORE;
	return n ? stcp_recv_next(n) : STCP_NEXT_SETTLED;
}

static enum stcp_next stcp_open_break(struct stcp_direction *d)
{
	if (!stcp_leg_abort(d->to, ECONNRESET))
		return STCP_NEXT_WAIT;
	d->out = d->out_end;
	d->in_end = 0;
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
