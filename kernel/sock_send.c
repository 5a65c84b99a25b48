// SPDX-License-Identifier: GPL-2.0
/*
 * Sending: each piece of a message that finds room becomes one DATA frame.
 *
 * A frame is sealed only when TCP has room, and is then TCP's as a whole
 * (sock_stream.c). So nothing waits here while the application does something else,
 * and FIN can always be said at once. MSG_MORE and TCP_CORK are left to TCP, which
 * fills segments and waits no longer than 200 ms.
 *
 * Only when TCP finds no memory the rest of a frame waits in @out. Nothing may tell us
 * when there is memory, so a work item tries again by time. It serves all users, so it
 * takes neither socket's lock that is not free, and memory without reclaim.
 */
#include <linux/delay.h>
#include <linux/sched/signal.h>
#include <linux/uio.h>

#include "sock_internal.h"

#define STCP_RETRY	msecs_to_jiffies(20)
/* How often FIN or RESET is tried when there is no memory. */
#define STCP_RETRIES	50

/* After stcp_inner_send() with the result @err. Return: @err. */
static int stcp_sent(struct stcp_sock *s, int err)
{
	struct stcp_session *e = s->session;
	struct sock *sk = stcp_outer(s);

	if (err == -EAGAIN) {
		queue_delayed_work(stcp_queue, &s->retry, STCP_RETRY);
		return err;
	}
	stcp_buffer_free(&e->out);
	e->out_at = 0;
	WRITE_ONCE(e->out_end, 0);
	if (err) {
		/* What was received before the error can still be read. */
		e->broken = true;
		WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | SEND_SHUTDOWN);
	}
	return err;
}

/* Send what TCP had no memory for. Return: 0 when nothing waits any more. */
int stcp_sock_flush(struct stcp_sock *s)
{
	struct stcp_session *e = s->session;

	if (likely(!e->out_end))
		return 0;
	return stcp_sent(s, stcp_inner_send(e, s->inner->sk, false));
}

void stcp_sock_retry(struct work_struct *work)
{
	struct stcp_sock *s = container_of(to_delayed_work(work), struct stcp_sock, retry);
	struct stcp_session *e = s->session;
	struct sock *sk = stcp_outer(s);

	if (!stcp_trylock(sk, NULL)) {
		queue_delayed_work(stcp_queue, &s->retry, STCP_RETRY);
		return;
	}
	if (e->out_end && !stcp_sock_flush(s))
		stcp_wake(sk, EPOLLOUT | EPOLLWRNORM);
	stcp_unlock(sk);
}

/* Seal @len bytes of text in @out and give them to TCP. Return: 0 or an errno. */
static int stcp_send_frame(struct stcp_sock *s, u8 type, u32 len, bool more)
{
	struct stcp_session *e = s->session;
	int err = stcp_cipher_seal(&e->send, &e->out, type, len);

	if (err) {
		stcp_buffer_free(&e->out);
		stcp_session_abort(s, stcp_cipher_blame(err), err);
		return -ECONNRESET;
	}
	e->out_at = 0;
	WRITE_ONCE(e->out_end, STCP_FRAME_OVERHEAD + len);
	return stcp_sent(s, stcp_inner_send(e, s->inner->sk, more));
}

/*
 * TCP had no memory for a frame. Return: false when the caller should not try once more.
 * A kernel thread does not wait; close() has kept out what could bring memory.
 */
static bool stcp_say_again(struct stcp_sock *s, int tries)
{
	if (tries >= STCP_RETRIES || current->flags & PF_KTHREAD)
		return false;
	msleep(20);
	if (s->session->locked)
		__sk_flush_backlog(s->inner->sk);
	return true;
}

/*
 * FIN, or RESET with @code. It does not wait for room. Return: 0, or a negative errno
 * when it did not leave; then nothing can be said any more.
 */
int stcp_sock_say(struct stcp_sock *s, u8 type, u16 code)
{
	struct stcp_session *e = s->session;
	int err, i, len = type == STCP_FRAME_RESET ? STCP_CODE_LEN : 0;
	u8 bytes[STCP_CODE_LEN];

	for (i = 0; (err = stcp_sock_flush(s)) == -EAGAIN && stcp_say_again(s, i); i++)
		;
	if (err || e->broken || (e->fin && type == STCP_FRAME_FIN))
		return err ?: -EPIPE;
	if (stcp_buffer_grow(&e->out, STCP_FRAME_OVERHEAD + len, stcp_gfp()))
		return -ENOMEM;
	if (len) {
		put_unaligned_be16(code, bytes);
		stcp_buffer_write(&e->out, STCP_HEADER_LEN, bytes, sizeof(bytes));
	}
	e->fin = true;
	err = stcp_send_frame(s, type, len, false);
	for (i = 0; err == -EAGAIN && stcp_say_again(s, i); i++)
		err = stcp_sock_flush(s);
	return err;
}

static int stcp_send_copy(struct stcp_buffer *b, struct msghdr *msg, u32 len)
{
	u32 at = STCP_HEADER_LEN, end = at + len, part, n;

	for (; at < end; at += n) {
		part = min_t(u32, end - at, PAGE_SIZE - offset_in_page(at));
		n = copy_page_from_iter(b->pages[at / PAGE_SIZE], offset_in_page(at), part,
					&msg->msg_iter);
		if (n != part)
			return -EFAULT;
	}
	return 0;
}

/* As much of the message as there is room for, at least a page. Return: bytes sent. */
static int stcp_send_data(struct stcp_sock *s, struct msghdr *msg)
{
	struct sock *isk = s->inner->sk;
	struct stcp_session *e = s->session;
	int room = max_t(int, sk_stream_wspace(isk), PAGE_SIZE) - STCP_FRAME_OVERHEAD;
	u32 len = min3(msg_data_left(msg), (size_t)room, (size_t)STCP_MAX_PLAINTEXT);
	bool more = msg->msg_flags & MSG_MORE || len < msg_data_left(msg);
	int err;

	if (stcp_buffer_grow(&e->out, STCP_FRAME_OVERHEAD + len, GFP_KERNEL)) {
		stcp_buffer_free(&e->out);
		return -ENOMEM;
	}
	err = stcp_send_copy(&e->out, msg, len);
	if (err) {
		stcp_buffer_free(&e->out);
		return err;
	}
	err = stcp_send_frame(s, STCP_FRAME_DATA, len, more);
	if (err && err != -EAGAIN)
		return err;
	e->sent += len;
	return len;
}

/* May anything be sent at all? */
static int stcp_send_may(struct stcp_sock *s)
{
	struct sock *sk = stcp_outer(s);
	struct stcp_session *e = s->session;

	/* Behind the peer's FIN nobody receives any more; RESET may be there. */
	if (e->eof && !e->fatal && stcp_inner_ready(s->inner->sk))
		stcp_sock_step(s);
	if (sk->sk_err)
		return sock_error(sk);
	/* TCP would report once more the error that SO_ERROR has taken. */
	if (e->fatal || e->broken || READ_ONCE(e->reported) ||
	    sk->sk_shutdown & SEND_SHUTDOWN)
		return -EPIPE;
	return 0;
}

static bool stcp_send_has_room(const struct stcp_sock *s)
{
	const struct sock *isk = s->inner->sk;

	return (sk_stream_is_writeable(isk) && !READ_ONCE(s->session->out_end)) ||
	       READ_ONCE(isk->sk_err) || inet_sk_state_load(isk) == TCP_CLOSE;
}

/* Ask TCP to call when there is room. Return: whether there is already. */
static bool stcp_send_ask(struct stcp_sock *s)
{
	set_bit(SOCK_NOSPACE, &s->inner->flags);
	/* Room that was made before the bit was set calls nobody. */
	smp_mb__after_atomic();
	return stcp_send_has_room(s);
}

static int stcp_send_wait(struct stcp_sock *s, long *timeo)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	struct sock *sk = stcp_outer(s);
	int err;

	/* For SIGIO: who does not wait hears of room, too. */
	sk_set_bit(SOCKWQ_ASYNC_NOSPACE, sk);
	if (stcp_send_ask(s))
		return 0;
	if (!*timeo)
		return -EAGAIN;
	if (signal_pending(current))
		return sock_intr_errno(*timeo);
	add_wait_queue(sk_sleep(sk), &wait);
	err = sk_wait_event(sk, timeo, stcp_send_has_room(s) || sk->sk_err ||
			    sk->sk_shutdown & SEND_SHUTDOWN, &wait);
	remove_wait_queue(sk_sleep(sk), &wait);
	return min(err, 0);
}

/* Needs no lock; for poll(). */
__poll_t stcp_sock_writable(struct stcp_sock *s)
{
	struct sock *sk = stcp_outer(s);

	if (READ_ONCE(sk->sk_shutdown) & SEND_SHUTDOWN || stcp_send_has_room(s))
		return EPOLLOUT | EPOLLWRNORM;
	sk_set_bit(SOCKWQ_ASYNC_NOSPACE, sk);
	return stcp_send_ask(s) ? EPOLLOUT | EPOLLWRNORM : 0;
}

/* May a frame be sealed now? Return: 0; -EAGAIN to wait first; another errno. */
static int stcp_send_begin(struct stcp_sock *s)
{
	const struct sock *isk = s->inner->sk;
	int err = stcp_send_may(s) ?: stcp_sock_flush(s);

	if (!err && !sk_stream_memory_free(isk) && !READ_ONCE(isk->sk_err) &&
	    inet_sk_state_load(isk) != TCP_CLOSE)
		err = -EAGAIN;
	return err;
}

static int stcp_send_locked(struct stcp_sock *s, struct msghdr *msg, long *timeo)
{
	int done = 0, err;

	if (!msg_data_left(msg))
		return stcp_send_may(s);
	while (msg_data_left(msg)) {
		err = stcp_send_begin(s);
		if (err == -EAGAIN) {
			err = stcp_send_wait(s, timeo);
			if (!err)
				continue;
		}
		if (!err)
			err = stcp_send_data(s, msg);
		if (err < 0)
			return done ?: err;
		done += err;
	}
	return done;
}

int stcp_sock_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)
{
	long timeo;
	int n;

	if (msg->msg_flags & (MSG_OOB | MSG_FASTOPEN))
		return -EOPNOTSUPP;
	lock_sock(sk);
	stcp_sock_mirror(stcp_sk(sk));
	timeo = sock_sndtimeo(sk, msg->msg_flags & MSG_DONTWAIT);
	n = stcp_sock_wait_connected(sk, &timeo);
	if (!n)
		n = stcp_send_locked(stcp_sk(sk), msg, &timeo);
	if (n < 0)
		n = sk_stream_error(sk, msg->msg_flags, n);
	release_sock(sk);
	return n;
}
