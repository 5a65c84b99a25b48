// SPDX-License-Identifier: GPL-2.0
/*
 * Receiving: frames become texts, texts become what recv() returns.
 *
 * stcp_sock_step() takes one frame, authenticates it, and only then acts on it. Texts
 * that were opened and not read stay in a list (sock_text.c). Errors and EOF stand
 * behind the texts.
 *
 * A peer can send small frames as fast as they are opened. So one call takes a bounded
 * number of them. Where it returns although there are more, or without memory for the
 * next one, poll() is woken: a program that uses edges of epoll takes a short read for
 * an empty socket.
 *
 * EOF is the peer's FIN and nothing else. The end of TCP's stream without it is
 * ECONNRESET, and stays so for every later call.
 */
#include <linux/sched/signal.h>

#include "sock_internal.h"

/* Frames that one call takes before it returns what it has, or looks at signals. */
#define STCP_CALL_FRAMES	1024

static void stcp_step_fin(struct stcp_sock *s)
{
	struct sock *sk = stcp_outer(s);

	WRITE_ONCE(s->session->eof, true);
	WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | RCV_SHUTDOWN);
	sk->sk_state_change(sk);
}

static void stcp_step_reset(struct stcp_sock *s, u32 len)
{
	struct stcp_session *e = s->session;
	u8 code[STCP_CODE_LEN];

	stcp_buffer_read(&e->next->buffer, STCP_HEADER_LEN, code, sizeof(code));
	e->code = get_unaligned_be16(code);
	e->reason_len = len - STCP_CODE_LEN;
	stcp_buffer_read(&e->next->buffer, STCP_HEADER_LEN + STCP_CODE_LEN, e->reason,
			 e->reason_len);
	stcp_session_end(s, STCP_END_PEER_RESET, 0, -ECONNRESET);
}

/* The next frame is whole, or its header is not allowed. */
static void stcp_step_frame(struct stcp_sock *s)
{
	struct stcp_session *e = s->session;
	u32 length = get_unaligned_be16(e->header + 2);
	int err;

	if (!stcp_header_valid(e->header, e->eof)) {
		stcp_session_abort(s, STCP_END_BAD_FRAME, -EBADMSG);
		return;
	}
	err = stcp_cipher_open(&e->receive, &e->next->buffer, length);
	if (err) {
		stcp_session_abort(s, stcp_cipher_blame(err), err);
		return;
	}
	switch (e->header[0]) {
	case STCP_FRAME_DATA:
		stcp_text_add(e, length - STCP_TAG_LEN);
		break;
	case STCP_FRAME_FIN:
		stcp_step_fin(s);
		break;
	case STCP_FRAME_RESET:
		stcp_step_reset(s, length - STCP_TAG_LEN);
		break;
	}
}

/* Bring the next frame into its buffer. Return: as stcp_inner_recv(). */
static int stcp_step_receive(struct stcp_session *e, struct sock *isk)
{
	int err = 0;

	if (!e->queued)
		return stcp_inner_recv(e, isk);
	stcp_inner_lock(e, isk);
	/* There was no memory to begin the next frame. */
	if (!e->queued_whole)
		err = stcp_session_next(e);
	else
		err = stcp_session_take_queued(e);
	stcp_inner_unlock(e, isk);
	return err ?: 1;
}

/* Is there a frame to take, or was there no memory to begin one? */
static bool stcp_recv_more(const struct stcp_sock *s)
{
	return READ_ONCE(s->session->queued) || stcp_inner_ready(s->inner->sk);
}

/*
 * Take one frame, or find the end. The caller has the outer socket lock.
 *
 * Return: 1 after progress; 0 when there is nothing to take, or nothing any more;
 * -ENOMEM.
 */
int stcp_sock_step(struct stcp_sock *s)
{
	struct sock *isk = s->inner->sk;
	struct stcp_session *e = s->session;
	int n;

	if (e->fatal)
		return 0;
	n = stcp_step_receive(e, isk);
	if (n == -ENOMEM)
		return n;
	if (n == -EAGAIN)
		return 0;
	if (n <= 0) {
		if (!e->eof)
			stcp_session_end(s, STCP_END_TRUNCATED, n,
					 n == -ETIMEDOUT ? n : -ECONNRESET);
		return !e->eof;
	}
	if (e->in_end < STCP_HEADER_LEN || e->in_end < stcp_frame_size(e, e->header))
		return 1;
	stcp_step_frame(s);
	if (e->fatal)
		return 1;
	stcp_inner_lock(e, isk);
	n = stcp_session_next(e);
	stcp_inner_expect(e, isk);
	stcp_inner_unlock(e, isk);
	/* Behind text the end has woken nobody who waits for EPOLLRDHUP alone. */
	if (READ_ONCE(e->ends) && stcp_recv_more(s))
		stcp_wake(stcp_outer(s), EPOLLIN | EPOLLRDNORM | EPOLLRDHUP);
	return n ?: 1;
}

/* Is there an end, whatever it is? Needs no lock, as the next two and stcp_recv_more(). */
static bool stcp_recv_over(const struct stcp_sock *s)
{
	const struct sock *isk = s->inner->sk;

	/* Pairs with stcp_session_end(). */
	return smp_load_acquire(&s->session->fatal) || READ_ONCE(s->session->eof) ||
	       READ_ONCE(isk->sk_err) || inet_sk_state_load(isk) == TCP_CLOSE ||
	       (READ_ONCE(isk->sk_shutdown) & RCV_SHUTDOWN);
}

/*
 * Is SO_RCVLOWAT reached, with the frames that are there? How much text they hold is exact
 * for one frame, and a guess for more. As with TCP, there is enough when no more would
 * find room.
 */
static bool stcp_recv_enough(const struct stcp_sock *s, u32 lowat)
{
	const struct stcp_session *e = s->session;
	struct sock *isk = s->inner->sk;
	u32 bytes = READ_ONCE(e->in_end) + tcp_inq(isk) +
		    READ_ONCE(e->queued_end) - READ_ONCE(e->queued_at);

	return lowat <= 1 || READ_ONCE(e->text_len) + bytes >= lowat + STCP_FRAME_OVERHEAD ||
	       tcp_epollin_ready(isk, INT_MAX);
}

/* What poll() asks. FIN and RESET end the peer's texts, so they are EPOLLRDHUP. */
__poll_t stcp_sock_readable(struct stcp_sock *s)
{
	struct stcp_session *e = s->session;
	u32 lowat = max(READ_ONCE(stcp_outer(s)->sk_rcvlowat), 1);
	bool more = stcp_recv_more(s);

	if (more && READ_ONCE(e->ends))
		return EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	if (stcp_recv_over(s) || READ_ONCE(e->text_len) >= lowat ||
	    (more && stcp_recv_enough(s, lowat)))
		return EPOLLIN | EPOLLRDNORM;
	return 0;
}

/* Return: 0 to look again, or a negative errno. */
static int stcp_recv_wait(struct stcp_sock *s, long *timeo)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	struct sock *sk = stcp_outer(s);
	int err;

	if (!*timeo)
		return -EAGAIN;
	if (signal_pending(current))
		return sock_intr_errno(*timeo);
	add_wait_queue(sk_sleep(sk), &wait);
	sk_set_bit(SOCKWQ_ASYNC_WAITDATA, sk);
	/* Not for texts: those that are there were read or peeked at. */
	err = sk_wait_event(sk, timeo, stcp_recv_more(s) || stcp_recv_over(s) ||
			    sk->sk_shutdown & RCV_SHUTDOWN, &wait);
	sk_clear_bit(SOCKWQ_ASYNC_WAITDATA, sk);
	remove_wait_queue(sk_sleep(sk), &wait);
	return min(err, 0);
}

/* Nothing was there to be read. Return: 0 to look again, 1 at the end, or an errno. */
static int stcp_recv_nothing(struct stcp_sock *s, long *timeo)
{
	struct sock *sk = stcp_outer(s);

	if (s->session->fatal) {
		sock_error(sk);
		return s->session->fatal;
	}
	if (sk->sk_shutdown & RCV_SHUTDOWN)
		return 1;
	return stcp_recv_wait(s, timeo);
}

static int stcp_recv_locked(struct stcp_sock *s, struct msghdr *msg, size_t len,
			    int flags, long *timeo)
{
	int target = sock_rcvlowat(stcp_outer(s), flags & MSG_WAITALL, len);
	struct stcp_session *e = s->session;
	size_t done = 0;
	int n, frames = 0;

	while (done < len) {
		n = stcp_texts_read(e, flags & MSG_PEEK ? done : 0,
				    min_t(size_t, len - done, INT_MAX), msg, flags);
		if (n < 0)
			return done ?: n;
		done += n;
		if (done == len ||
		    (flags & MSG_PEEK && done && stcp_texts_full(e, s->inner->sk)))
			break;
		n = stcp_sock_step(s);
		if (n > 0 && ++frames % STCP_CALL_FRAMES)
			continue;
		if (n > 0 ? done >= target || !*timeo : n && done)
			stcp_wake(stcp_outer(s), EPOLLIN | EPOLLRDNORM);
		if (n >= 0 && done >= target)
			break;
		if (n > 0)
			n = signal_pending(current) ? sock_intr_errno(*timeo) :
			    *timeo ? 0 : -EAGAIN;
		else if (!n)
			n = stcp_recv_nothing(s, timeo);
		if (n)
			return done ?: min(n, 0);
	}
	return done;
}

/*
 * Wait for the end of a handshake that is under way. Return: 0 with a session; -EPIPE
 * when there is no handshake; another negative errno.
 */
int stcp_sock_wait_connected(struct sock *sk, long *timeo)
{
	int err;

	if (inet_sk_state_load(sk) == TCP_ESTABLISHED)
		return 0;
	err = sk_stream_wait_connect(sk, timeo);
	if (err != -EPIPE)
		return err;
	/* The end may have come after the state was looked at. */
	return inet_sk_state_load(sk) == TCP_ESTABLISHED ? 0 : sock_error(sk) ?: -EPIPE;
}

/*
 * Take frames until there is text, or @enough of it, or the texts hold as much memory as
 * they may. Return: how much text there is. A peer that sends small frames does not keep
 * the caller busy.
 */
u32 stcp_sock_look(struct stcp_sock *s, u32 enough)
{
	struct stcp_session *e = s->session;
	int frames = 0;

	while (e->text_len < enough && !stcp_texts_full(e, s->inner->sk) &&
	       frames++ < STCP_CALL_FRAMES && stcp_sock_step(s) > 0)
		;
	return e->text_len;
}

/* Bytes that recv() would return: they have to be opened to be counted. */
int stcp_sock_inq(struct sock *sk)
{
	struct stcp_sock *s = stcp_sk(sk);
	int n = -EINVAL;

	lock_sock(sk);
	if (inet_sk_state_load(sk) == TCP_ESTABLISHED)
		n = stcp_sock_look(s, STCP_MAX_QUEUED);
	else if (sk->sk_state != TCP_LISTEN)
		n = 0;
	release_sock(sk);
	return n;
}

int stcp_sock_recv(struct sock *sk, struct msghdr *msg, size_t len, int flags)
{
	long timeo;
	int n;

	if (flags & MSG_ERRQUEUE)
		return -EAGAIN;
	if (flags & MSG_OOB)
		return -EINVAL;
	lock_sock(sk);
	stcp_sock_mirror(stcp_sk(sk));
	timeo = sock_rcvtimeo(sk, flags & MSG_DONTWAIT);
	n = stcp_sock_wait_connected(sk, &timeo);
	if (n == -EPIPE)
		n = -ENOTCONN;
	if (!n)
		n = stcp_recv_locked(stcp_sk(sk), msg, len, flags, &timeo);
	release_sock(sk);
	return n;
}
