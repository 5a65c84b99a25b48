// SPDX-License-Identifier: GPL-2.0
/*
 * A session: ciphers, the frame that is being received, texts that were not read yet,
 * and how it all ended.
 *
 * It is made by the agent's DONE, before anybody else sees it. Bytes that the agent
 * has read beyond the handshake are received first; what is left of them
 * when they hold no whole frame any more becomes the beginning of the next frame.
 *
 * A session ends for each direction by FIN, or as a whole by stcp_session_end(). The
 * first cause stays. recv() then repeats the error for ever: an end that was not a FIN
 * must never look like one.
 */
#include <linux/mm.h>
#include <linux/slab.h>

#include "sock_internal.h"

/* Pages for the first @size bytes of the frame that is being received. */
int stcp_session_grow(struct stcp_session *e, u32 size)
{
	if (!e->next) {
		e->next = kzalloc(sizeof(*e->next), stcp_gfp() | __GFP_ACCOUNT);
		if (!e->next)
			return -ENOMEM;
	}
	return stcp_buffer_grow(&e->next->buffer, size, stcp_gfp()) ? -ENOMEM : 0;
}

/* @n more bytes of the frame are in the buffer. */
void stcp_session_took(struct stcp_session *e, u32 n)
{
	u32 from = e->in_end, end = min_t(u32, from + n, STCP_HEADER_LEN);

	if (from < end)
		stcp_buffer_read(&e->next->buffer, from, e->header + from, end - from);
	WRITE_ONCE(e->in_end, from + n);
}

/* Do the agent's bytes hold a whole frame? If not, begin the next frame with them. */
static int stcp_session_queued(struct stcp_session *e)
{
	u32 left = e->queued_end - e->queued_at;
	const u8 *at = e->queued + e->queued_at;
	int err;

	WRITE_ONCE(e->queued_whole,
		   left >= STCP_HEADER_LEN && left >= stcp_frame_size(e, at));
	WRITE_ONCE(e->ends, e->queued_whole && stcp_frame_ends(e, at));
	if (e->queued_whole)
		return 0;
	if (left) {
		err = stcp_session_grow(e, left);
		if (err)
			return err;
		stcp_buffer_write(&e->next->buffer, 0, at, left);
		stcp_session_took(e, left);
		WRITE_ONCE(e->queued_at, e->queued_end);
	}
	kvfree(e->queued);
	WRITE_ONCE(e->queued, NULL);
	return 0;
}

/*
 * Take the next frame of the agent's bytes. Return: 0 or -ENOMEM. The caller holds the
 * inner socket lock, or nobody else sees the session yet.
 */
int stcp_session_take_queued(struct stcp_session *e)
{
	u32 len = stcp_frame_size(e, e->queued + e->queued_at);
	int err = stcp_session_grow(e, len);

	if (err)
		return err;
	stcp_buffer_write(&e->next->buffer, 0, e->queued + e->queued_at, len);
	stcp_session_took(e, len);
	WRITE_ONCE(e->queued_at, e->queued_at + len);
	return 0;
}

/* The next frame was dealt with. Return: 0 or -ENOMEM, after which to call again. */
int stcp_session_next(struct stcp_session *e)
{
	memset(e->header, 0, sizeof(e->header));
	WRITE_ONCE(e->in_end, 0);
	return e->queued ? stcp_session_queued(e) : 0;
}

static int stcp_session_fill(struct stcp_session *e,
			     const struct stcp_session_args *args)
{
	int err = stcp_cipher_init(&e->send, args->send_key, args->send_counter) ?:
		  stcp_cipher_init(&e->receive, args->receive_key,
				   args->receive_counter);

	if (err)
		return err;
	e->peer_len = args->peer_len;
	if (args->peer_len)
		memcpy(e->peer, args->peer, args->peer_len);
	memcpy(e->channel_id, args->channel_id, sizeof(e->channel_id));
	if (!args->wire_len)
		return 0;
	e->queued = kvmalloc(args->wire_len, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!e->queued)
		return -ENOMEM;
	memcpy(e->queued, args->wire_bytes, args->wire_len);
	e->queued_end = args->wire_len;
	return stcp_session_queued(e);
}

/* Return: a session or an ERR_PTR(). The caller has called stcp_pay_begin(). */
struct stcp_session *stcp_session_create(const struct stcp_session_args *args)
{
	struct stcp_session *e = kzalloc(sizeof(*e), GFP_KERNEL_ACCOUNT);
	int err;

	if (!e)
		return ERR_PTR(-ENOMEM);
	INIT_LIST_HEAD(&e->texts);
	err = stcp_session_fill(e, args);
	if (!err)
		return e;
	stcp_session_free(e);
	return ERR_PTR(err);
}

/* Memory of buffers. Call under the outer socket lock. */
u32 stcp_session_buffered(const struct stcp_session *e)
{
	return e->held + (e->out.count + (e->next ? e->next->buffer.count : 0)) * PAGE_SIZE;
}

void stcp_session_free(struct stcp_session *e)
{
	struct stcp_text *text, *after;

	list_for_each_entry_safe(text, after, &e->texts, list)
		stcp_text_free(text);
	if (e->next)
		stcp_text_free(e->next);
	kvfree(e->queued);
	stcp_buffer_free(&e->out);
	stcp_cipher_destroy(&e->send);
	stcp_cipher_destroy(&e->receive);
	kfree(e);
}

/*
 * The connection is over, and not by FIN. Return: whether this is the first cause.
 * @fatal is the errno for the application. Where TCP's error has been in sk_err already,
 * SO_ERROR may have taken it, and it does not come back.
 */
bool stcp_session_end(struct stcp_sock *s, enum stcp_end end, int error, int fatal)
{
	struct sock *sk = stcp_outer(s);
	struct stcp_session *e = s->session;

	if (e->fatal)
		return false;
	e->end = end;
	e->error = error;
	stcp_session_report(e, sk, -fatal);
	/* poll() that sees the end sees the error. */
	smp_store_release(&e->fatal, fatal);
	WRITE_ONCE(sk->sk_shutdown, SHUTDOWN_MASK);
	sk->sk_state_change(sk);
	return true;
}

/* The same for a peer that does not keep to the protocol: it gets an RST. */
void stcp_session_abort(struct stcp_sock *s, enum stcp_end end, int error)
{
	if (stcp_session_end(s, end, error, -ECONNRESET))
		stcp_inner_abort(s);
}
