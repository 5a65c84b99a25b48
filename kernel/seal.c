// SPDX-License-Identifier: GPL-2.0
/*
 * Plain to wire: whatever one receive brings becomes one DATA frame.
 *
 * The text is received behind the room for the frame's header, so sealing and
 * sending need no copy. This direction owns the sending side of the wire, and
 * so also says the last word there: FIN after the plain leg's EOF, RESET when
 * the connection is given up, an RST when there is nobody to talk to. A frame
 * that was begun is always sent to its end first.
 */
#include "internal.h"

static enum stcp_next stcp_seal_failed(struct stcp_direction *d, int err)
{
	stcp_relay_break(d->relay, stcp_cipher_blame(err), err);
	return STCP_NEXT_MORE;
}

/*
 * The wire takes no more. What it has received may still be a RESET that says
 * why, so the other direction reads it to its end and decides.
 */
static enum stcp_next stcp_seal_broken(struct stcp_direction *d, int err)
{
	if (d->mode == STCP_MODE_RESET) {
		d->out = d->out_end;
		return STCP_NEXT_SETTLED;
	}
	d->error = err;
	/* Whoever sees it broken sees the error. */
	smp_store_release(&d->broken, true);
	stcp_direction_kick(&d->relay->open);
	return STCP_NEXT_WAIT;
}

/* Seal @len bytes that stand behind the header's room; the rest is sending. */
static enum stcp_next stcp_seal_frame(struct stcp_direction *d, u8 type, u32 len)
{
	struct net *net = sock_net(d->relay->wire->sk);
	int err;

	/* There may be no memory for the tag: the text stays until there is. */
	if (stcp_buffer_grow(&d->buffer, STCP_FRAME_OVERHEAD + len, GFP_NOWAIT))
		return STCP_NEXT_RETRY;
	err = stcp_cipher_seal(&d->cipher, &d->buffer, type, len);
	if (err)
		return stcp_seal_failed(d, err);
	d->in_end = 0;
	d->out = 0;
	d->out_end = STCP_FRAME_OVERHEAD + len;
	stcp_stat_add(net, STCP_STAT_FRAMES_SEALED, 1);
	return STCP_NEXT_MORE;
}

/* Text is in the buffer behind the room for its header. */
static enum stcp_next stcp_seal_data(struct stcp_direction *d)
{
	u32 len = d->in_end - STCP_HEADER_LEN;
	enum stcp_next next = stcp_seal_frame(d, STCP_FRAME_DATA, len);

	if (next == STCP_NEXT_MORE && !d->in_end) {
		WRITE_ONCE(d->bytes, d->bytes + len);
		stcp_stat_add(sock_net(d->relay->wire->sk),
			      STCP_STAT_BYTES_TO_WIRE, len);
	}
	return next;
}

static enum stcp_next stcp_seal_fin(struct stcp_direction *d)
{
	enum stcp_next next = stcp_seal_frame(d, STCP_FRAME_FIN, 0);

	if (next == STCP_NEXT_MORE)
		/* Whoever sees FIN sealed sees what is still to be sent of it. */
		smp_store_release(&d->fin, true);
	return next;
}

/* A whole frame of text at most. */
u32 stcp_seal_want(const struct stcp_direction *d)
{
	return STCP_HEADER_LEN + STCP_MAX_PLAINTEXT;
}

static enum stcp_next stcp_seal_run(struct stcp_direction *d)
{
	struct stcp_relay *relay = d->relay;
	int n;

	if (d->fin) {
		if (!d->fin_passed) {
			WRITE_ONCE(d->fin_passed, true);
			stcp_relay_half_closed(relay);
			/* With this the connection may be over, for a kept leg. */
			if (relay->keep)
				stcp_direction_kick(&relay->open);
		}
		return STCP_NEXT_SETTLED;
	}
	if (d->in_end)
		return stcp_seal_data(d);
	d->in_end = STCP_HEADER_LEN;
	n = stcp_direction_recv(d);
	if (n > 0)
		return stcp_seal_data(d);
	d->in_end = 0;
	if (!n)
		return stcp_seal_fin(d);
	if (stcp_recv_next(n) != STCP_NEXT_SETTLED)
		return stcp_recv_next(n);
	stcp_relay_reset(relay, STCP_END_PLAIN_RESET, n, STCP_CODE_PLAIN_RESET,
			 NULL, 0);
	return STCP_NEXT_MORE;
}

static enum stcp_next stcp_seal_reset(struct stcp_direction *d)
{
	struct stcp_relay *relay = d->relay;
	u32 len = STCP_CODE_LEN + relay->text_len;
	u8 code[STCP_CODE_LEN];
	enum stcp_next next;

	if (d->last_frame)
		return stcp_leg_shutdown(d->to) ? STCP_NEXT_SETTLED : STCP_NEXT_WAIT;
	/* Text that was not sealed yet goes nowhere. */
	d->in_end = 0;
	if (stcp_buffer_grow(&d->buffer, STCP_FRAME_OVERHEAD + len, GFP_NOWAIT))
		return STCP_NEXT_RETRY;
	/* code and text were set before the mode and do not change after it */
	put_unaligned_be16(relay->code, code);
	stcp_buffer_write(&d->buffer, STCP_HEADER_LEN, code, sizeof(code));
	stcp_buffer_write(&d->buffer, STCP_HEADER_LEN + STCP_CODE_LEN, relay->text,
			  relay->text_len);
	next = stcp_seal_frame(d, STCP_FRAME_RESET, len);
	if (next == STCP_NEXT_MORE)
		d->last_frame = true;
	return next;
}

static enum stcp_next stcp_seal_break(struct stcp_direction *d)
{
	bool done;

	d->out = d->out_end;
	d->in_end = 0;
	/* A peer that said RESET waits for our end of the stream. */
	if (d->relay->end == STCP_END_PEER_RESET)
		done = stcp_leg_shutdown(d->to);
	else
		done = stcp_leg_abort(d->to, ECONNABORTED);
	return done ? STCP_NEXT_SETTLED : STCP_NEXT_WAIT;
}

enum stcp_next stcp_seal_step(struct stcp_direction *d)
{
	enum stcp_next next;
	int err = 0;

	if (READ_ONCE(d->settled))
		return STCP_NEXT_WAIT;
	if (d->mode == STCP_MODE_BREAK)
		return stcp_seal_break(d);
	if (d->broken && d->mode == STCP_MODE_RUN)
		return STCP_NEXT_WAIT;
	next = stcp_direction_send(d, &err, false);
	if (err)
		return stcp_seal_broken(d, err);
	if (next != STCP_NEXT_MORE)
		return next;
	if (d->mode == STCP_MODE_RESET)
		return stcp_seal_reset(d);
	return stcp_seal_run(d);
}
