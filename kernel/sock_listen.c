// SPDX-License-Identifier: GPL-2.0
/*
 * Listening: accept() hands out only connections whose peer has authenticated.
 *
 * The inner socket listens. A work item takes what TCP has accepted and makes an
 * embryo of it: an outer socket that no descriptor leads to, with a handshake for the
 * agent. An embryo is on one of three lists: embryos (the handshake goes on), ready
 * (for accept()), dead (the work item frees it). Embryos and ready ones together are
 * bounded by the backlog (sock_backlog.c), and the embryos of all of a user's listeners by
 * the user's share (sock_share.c); the rest waits in TCP's own queue, as ever. Each
 * embryo has its time, and a shorter one while a newcomer waits for a place.
 *
 * A run of the work item frees the dead and takes at most STCP_LISTEN_RUN connections. The
 * work item queues itself again while TCP has more, so a flood never keeps the dead.
 *
 * The work item never sleeps for a lock that the agent can hold: an embryo whose
 * inner socket is held is freed later. It acts with the credentials of
 * listen() and allocates for its memory cgroup. It does not wait for that memory
 * (memory.c), for its queue is the kernel's and has a limited number of workers: where
 * there is none, the connection waits in TCP's queue for the next try.
 *
 * An embryo's end (stcp_embryo_over()) comes under agent->lock; the listener's close()
 * takes embryos off their lists first, then ends their handshakes one by one.
 */
#include <linux/file.h>
#include <linux/memcontrol.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "sock_internal.h"

#define STCP_LISTEN_RETRY	msecs_to_jiffies(50)
/* The share has no room: many listeners of one user may ask for it again. */
#define STCP_LISTEN_FULL	msecs_to_jiffies(250)
/* An embryo with its sockets, file and directory entry takes less. */
#define STCP_EMBRYO_SIZE	8192

void stcp_listener_kick(struct stcp_sock *s)
{
	struct stcp_listener *l = s->listener;

	if (!READ_ONCE(l->closed))
		mod_delayed_work(STCP_UNBOUND_WQ, &l->work, 0);
}

/*
 * The handshake of an embryo is over; agent->lock is held. Once the embryo is ready,
 * accept() forgets the parent, and needs no lock of ours for it. The listener's close()
 * takes agent->lock, so the parent itself stays.
 */
void stcp_embryo_over(struct stcp_sock *s, bool good)
{
	struct stcp_sock *parent = s->parent;
	struct stcp_listener *l = parent->listener;

	spin_lock_bh(&l->lock);
	/* It may be in the hands of the listener's close() already. */
	if (!list_empty(&s->embryo)) {
		list_move_tail(&s->embryo, good ? &l->ready : &l->dead);
		if (good) {
			l->embryo_count--;
			WRITE_ONCE(l->ready_count, l->ready_count + 1);
		}
	}
	spin_unlock_bh(&l->lock);
	if (good)
		stcp_wake(stcp_outer(parent), EPOLLIN | EPOLLRDNORM);
	else
		stcp_listener_kick(parent);
}

/* -- the work item ------------------------------------------------------------ */

static struct stcp_sock *stcp_listener_pop(struct stcp_listener *l,
					   struct list_head *list)
{
	struct stcp_sock *s;

	spin_lock_bh(&l->lock);
	s = list_first_entry_or_null(list, struct stcp_sock, embryo);
	if (s) {
		list_del_init(&s->embryo);
		if (list == &l->ready)
			WRITE_ONCE(l->ready_count, l->ready_count - 1);
	}
	spin_unlock_bh(&l->lock);
	return s;
}

/* Return: false when the agent holds the inner socket of one that is dead. */
static bool stcp_listener_reap(struct stcp_listener *l)
{
	struct stcp_sock *s;
	bool freed;

	while ((s = stcp_listener_pop(l, &l->dead))) {
		/* Only an embryo that has lost its place still has a handshake. */
		stcp_handshake_cancel(s, -ETIMEDOUT);
		freed = !s->inner || stcp_inner_close_later(s);
		spin_lock_bh(&l->lock);
		if (freed)
			l->embryo_count--;
		else
			list_add_tail(&s->embryo, &l->dead);
		spin_unlock_bh(&l->lock);
		if (!freed)
			return false;
		sk_common_release(stcp_outer(s));
	}
	return true;
}

/*
 * Give an embryo to the agent. Once its handshake is pending, the agent may end it, and the
 * program may accept and close the socket. From then on nothing but the references taken
 * here keeps the memory of both sockets. stcp_handshake_connected() makes the handshake
 * pending, or a callback of TCP does before it, where TCP Fast Open establishes the
 * connection just now. An embryo that fails earlier is dead: only the work item frees it.
 */
static void stcp_listener_begin(struct stcp_sock *s, struct stcp_share *share)
{
	struct sock *sk = stcp_outer(s), *isk = s->inner->sk;

	sock_hold(sk);
	sock_hold(isk);
	stcp_handshake_begin(s, share);
	/* What happened before the callbacks were on has called nobody. */
	if (inet_sk_state_load(isk) == TCP_CLOSE)
		stcp_handshake_fail(s, ECONNRESET);
	stcp_handshake_connected(s);
	sock_put(isk);
	sock_put(sk);
}

/*
 * An outer socket for one connection, or an ERR_PTR(): -EAGAIN when there is none. The
 * listener's memory cgroup pays.
 */
static struct stcp_sock *stcp_listener_embryo(struct stcp_sock *parent)
{
	struct socket *inner;
	struct sock *sk;
	int err = kernel_accept(parent->inner, &inner, O_NONBLOCK);

	if (err)
		return ERR_PTR(err);
	stcp_inner_child(inner);
	sk = stcp_embryo_alloc(stcp_outer(parent));
	if (!sk) {
		sock_release(inner);
		return ERR_PTR(-ENOMEM);
	}
	err = stcp_inner_own(stcp_sk(sk), inner);
	if (err) {
		sk_common_release(sk);
		return ERR_PTR(err);
	}
	return stcp_sk(sk);
}

/*
 * Make an embryo of one connection. It is paid and counted before TCP gives it up, so that
 * it stays in TCP's queue without room for it. Return: 0; -ENOBUFS; -ENOMEM; -EAGAIN
 * when there is none.
 */
static int stcp_listener_take(struct stcp_listener *l)
{
	struct stcp_agent *agent = stcp_agent_of(sock_net(stcp_outer(l->s)));
	struct stcp_handshake *payer = &l->s->handshake;
	struct stcp_payment payment;
	struct stcp_share *share;
	struct stcp_sock *s;

	if (!stcp_pay_begin(&payment, payer->memcg, STCP_EMBRYO_SIZE, false))
		return -ENOMEM;
	share = stcp_share_get(agent, payer->share_user, STCP_RESPONDER);
	s = IS_ERR(share) ? ERR_CAST(share) : stcp_listener_embryo(l->s);
	stcp_pay_end(&payment);
	if (IS_ERR(share))
		return PTR_ERR(share);
	if (!IS_ERR(s) && stcp_listener_admit(l, s)) {
		stcp_listener_begin(s, share);
		return 0;
	}
	stcp_share_return(agent, share);
	if (IS_ERR(s))
		return PTR_ERR(s);
	sk_common_release(stcp_outer(s));
	return 0;
}

/* Return: when the work item has to come again by itself; MAX_JIFFY_OFFSET: not at all. */
static unsigned long stcp_listener_again(struct stcp_listener *l, int err, bool stuck)
{
	unsigned long delay = MAX_JIFFY_OFFSET;

	if (stuck || !list_empty_careful(&l->dead))
		delay = STCP_LISTEN_RETRY;
	if (err == -ENOBUFS)
		delay = min(delay, STCP_LISTEN_FULL);
	else if (err == -EAGAIN || err == -EINVAL)
		return delay;
	else if (err)
		return STCP_LISTEN_RETRY;
	if (!stcp_listener_queued(l))
		return delay;
	/* The bound of one run. */
	if (!err && stcp_listener_room(l))
		return 0;
	return min(delay, stcp_listener_make_room(l));
}

static void stcp_listener_work(struct work_struct *work)
{
	struct stcp_listener *l = container_of(to_delayed_work(work),
					       struct stcp_listener, work);
	const struct cred *cred = override_creds(l->cred);
	bool stuck = !stcp_listener_reap(l);
	unsigned int left = STCP_LISTEN_RUN;
	unsigned long delay;
	int err = 0;

	while (!err && left-- && stcp_listener_queued(l) && stcp_listener_room(l)) {
		err = stcp_listener_take(l);
		if (err == -ECONNABORTED)
			err = 0;
		cond_resched();
	}
	delay = stcp_listener_again(l, err, stuck);
	revert_creds(cred);
	if (delay != MAX_JIFFY_OFFSET && !READ_ONCE(l->closed))
		queue_delayed_work(STCP_UNBOUND_WQ, &l->work, delay);
}

/* -- system calls ------------------------------------------------------------- */

static struct stcp_listener *stcp_listener_create(struct stcp_sock *s)
{
	struct stcp_listener *l = kzalloc(sizeof(*l), GFP_KERNEL_ACCOUNT);

	if (!l)
		return NULL;
	l->s = s;
	spin_lock_init(&l->lock);
	INIT_LIST_HEAD(&l->embryos);
	INIT_LIST_HEAD(&l->ready);
	INIT_LIST_HEAD(&l->dead);
	l->look = jiffies;
	INIT_DELAYED_WORK(&l->work, stcp_listener_work);
	l->cred = get_current_cred();
	stcp_handshake_payer(s);
	return l;
}

static int stcp_listen_locked(struct socket *sock, int backlog)
{
	struct stcp_sock *s = stcp_sk(sock->sk);
	struct sock *sk = sock->sk;
	struct stcp_listener *l;
	int err;

	if (sock->state != SS_UNCONNECTED ||
	    !((1 << sk->sk_state) & (TCPF_CLOSE | TCPF_LISTEN)) || s->handshake.taken)
		return -EINVAL;
	if (!s->listener) {
		l = stcp_listener_create(s);
		if (!l)
			return -ENOMEM;
		stcp_inner_listener(s, l);
	}
	l = s->listener;
	stcp_sock_mirror(s);
	spin_lock_bh(&l->lock);
	l->limit = clamp_t(int, backlog, 1,
			   READ_ONCE(stcp_agent_of(sock_net(sk))->max_embryos));
	spin_unlock_bh(&l->lock);
	err = kernel_listen(s->inner, backlog);
	if (err)
		return err;
	WRITE_ONCE(l->closed, false);
	stcp_state_store(sk, TCP_LISTEN);
	stcp_listener_kick(s);
	return 0;
}

int stcp_sock_listen(struct socket *sock, int backlog)
{
	int err;

	lock_sock(sock->sk);
	err = stcp_listen_locked(sock, backlog);
	release_sock(sock->sk);
	return err;
}

static struct stcp_sock *stcp_accept_wait(struct sock *sk, long timeo, int *err)
{
	struct stcp_listener *l = stcp_sk(sk)->listener;
	struct stcp_sock *s;
	DEFINE_WAIT(wait);

	for (;;) {
		prepare_to_wait_exclusive(sk_sleep(sk), &wait, TASK_INTERRUPTIBLE);
		s = stcp_listener_pop(l, &l->ready);
		if (s)
			break;
		*err = inet_sk_state_load(sk) != TCP_LISTEN ? -EINVAL :
		       !timeo ? -EAGAIN :
		       signal_pending(current) ? sock_intr_errno(timeo) : 0;
		if (*err)
			break;
		timeo = schedule_timeout(timeo);
	}
	finish_wait(sk_sleep(sk), &wait);
	return s;
}

int stcp_listener_accept(struct socket *sock, struct socket *newsock, int flags)
{
	struct sock *sk = sock->sk, *newsk;
	struct stcp_sock *s;
	int err = 0;

	if (inet_sk_state_load(sk) != TCP_LISTEN)
		return -EINVAL;
	s = stcp_accept_wait(sk, sock_rcvtimeo(sk, flags & O_NONBLOCK), &err);
	if (!s)
		return err;
	newsk = stcp_outer(s);
	lock_sock(newsk);
	s->parent = NULL;
	sock_graft(newsk, newsock);
	newsock->state = SS_CONNECTED;
	release_sock(newsk);
	stcp_listener_kick(stcp_sk(sk));
	return 0;
}

/* shutdown(): no more of it, though what is there stays until close(). */
void stcp_listener_shutdown(struct stcp_sock *s)
{
	struct sock *sk = stcp_outer(s);

	WRITE_ONCE(s->listener->closed, true);
	lock_sock(s->inner->sk);
	stcp_inner_leave_group(s->inner->sk);
	release_sock(s->inner->sk);
	kernel_sock_shutdown(s->inner, SHUT_RDWR);
	stcp_state_store(sk, TCP_CLOSE);
	sk->sk_state_change(sk);
}

static void stcp_listener_close_embryos(struct stcp_listener *l)
{
	struct stcp_sock *embryo;

	while ((embryo = stcp_listener_pop(l, &l->embryos)) ||
	       (embryo = stcp_listener_pop(l, &l->ready)) ||
	       (embryo = stcp_listener_pop(l, &l->dead)))
		stcp_sock_close(stcp_outer(embryo), 0);
}

/* close(). Nobody else has a descriptor of the listener any more. */
void stcp_listener_destroy(struct stcp_sock *s)
{
	struct stcp_listener *l = s->listener;

	WRITE_ONCE(l->closed, true);
	/* No callback kicks any more; an embryo sees @closed. */
	stcp_inner_unhook(s);
	cancel_delayed_work_sync(&l->work);
	stcp_listener_close_embryos(l);
	/*
	 * An embryo that was over meanwhile may have kicked in between, and the work item
	 * has put one back that the agent holds.
	 */
	cancel_delayed_work_sync(&l->work);
	stcp_listener_close_embryos(l);
	put_cred(l->cred);
	s->listener = NULL;
	kfree(l);
}
