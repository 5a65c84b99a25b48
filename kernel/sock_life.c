// SPDX-License-Identifier: GPL-2.0
/*
 * The life of an outer socket: how it is made, connects, and ends.
 *
 * sk_state is CLOSE, SYN_SENT (TCP connects, or the handshake goes on), ESTABLISHED
 * (there is a session) or LISTEN. connect() is the socket layer's own
 * (inet_stream_connect()): it calls stcp_connect() once, and waits for the
 * end of SYN_SENT. A connection attempt that failed before the agent had the
 * inner socket may be repeated; after that the inner socket is not ours alone any more,
 * and the application needs a new socket, as most make anyway.
 *
 * close() says the last word: FIN, or RESET when there are bytes that the application
 * has not read, or when it asked for it by SO_LINGER with a time of 0. Then the
 * inner socket closes behind it. All of this happens under the inner socket lock. Only a
 * call of the agent that began before DONE can hold that lock, for as long as
 * it likes, and close() does not wait for it: a work item resets the connection later.
 */
#include <linux/memcontrol.h>
#include <linux/security.h>
#include <net/inet_common.h>

#include "sock_internal.h"

/* Time until another try to lock an inner socket that the agent holds. */
#define STCP_ABANDONED_RETRY	(HZ / 10 + 1)

static struct lock_class_key stcp_lock_keys[2];

/* -- making ---------------------------------------------------------------------- */

static void stcp_sock_setup(struct sock *sk)
{
	struct stcp_sock *s = stcp_sk(sk);

	/* It nests around the inner socket's, which has the class of its family. */
	sock_lock_init_class_and_name(sk, "slock-STCP", &stcp_lock_keys[0],
				      "sk_lock-STCP", &stcp_lock_keys[1]);
	INIT_LIST_HEAD(&s->handshake.list);
	timer_setup(&s->handshake.timer, stcp_handshake_expired, 0);
	INIT_LIST_HEAD(&s->embryo);
	INIT_DELAYED_WORK(&s->retry, stcp_sock_retry);
	stcp_sock_mirror_init(s);
}

int stcp_sock_init(struct sock *sk)
{
	stcp_sock_setup(sk);
	return stcp_inner_create(stcp_sk(sk));
}

/* An outer socket for a connection that a listener has accepted. */
struct sock *stcp_embryo_alloc(struct sock *listener)
{
	struct stcp_sock *from = stcp_sk(listener), *s;
	struct sock *sk = sk_alloc(sock_net(listener), listener->sk_family, GFP_KERNEL,
				   listener->sk_prot_creator, 0);

	if (!sk)
		return NULL;
	/* As for an accepted socket of TCP: a security module knows it by its listener. */
	security_sk_clone(listener, sk);
	sock_init_data(NULL, sk);
	sk->sk_type = SOCK_STREAM;
	sk->sk_protocol = listener->sk_protocol;
	sk->sk_destruct = inet_sock_destruct;
	sk->sk_uid = listener->sk_uid;
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6)
		inet_sk(sk)->pinet6 = &((struct stcp6_sock *)sk)->inet6;
#endif
	/* As accept() of TCP: the options of the listener. */
	sk->sk_rcvlowat = listener->sk_rcvlowat;
	sk->sk_rcvtimeo = listener->sk_rcvtimeo;
	sk->sk_sndtimeo = listener->sk_sndtimeo;
	sk->sk_lingertime = listener->sk_lingertime;
	sock_valbool_flag(sk, SOCK_LINGER, sock_flag(listener, SOCK_LINGER));
	sock_valbool_flag(sk, SOCK_KEEPOPEN, sock_flag(listener, SOCK_KEEPOPEN));
	sock_valbool_flag(sk, SOCK_LOCALROUTE, sock_flag(listener, SOCK_LOCALROUTE));
	sk->sk_priority = listener->sk_priority;
	sk->sk_mark = listener->sk_mark;
	sk->sk_bound_dev_if = listener->sk_bound_dev_if;
	sk->sk_max_pacing_rate = listener->sk_max_pacing_rate;
	sk->sk_reuse = listener->sk_reuse;
	sk->sk_reuseport = listener->sk_reuseport;
	sk->sk_userlocks = listener->sk_userlocks & (SOCK_SNDBUF_LOCK | SOCK_RCVBUF_LOCK);
	sk->sk_sndbuf = listener->sk_sndbuf;
	sk->sk_rcvbuf = listener->sk_rcvbuf;
	stcp_sock_setup(sk);
	s = stcp_sk(sk);
	s->parent = from;
	s->handshake.user = from->handshake.user;
	s->handshake.share_user = from->handshake.share_user;
	s->handshake.memcg = from->handshake.memcg;
	if (s->handshake.memcg)
		css_get(&s->handshake.memcg->css);
	strscpy(s->identity, from->identity, sizeof(s->identity));
	return sk;
}

/* The current process pays for handshakes of this socket, and its user's share has them. */
void stcp_handshake_payer(struct stcp_sock *s)
{
	mem_cgroup_put(s->handshake.memcg);
	s->handshake.memcg = get_mem_cgroup_from_mm(current->mm);
	s->handshake.user = current_euid();
	s->handshake.share_user = stcp_current_user();
}

/* -- connecting ------------------------------------------------------------------ */

int stcp_connect(struct sock *sk, STCP_SOCKADDR *addr, int len)
{
	struct stcp_agent *agent = stcp_agent_of(sock_net(sk));
	struct stcp_sock *s = stcp_sk(sk);
	struct stcp_share *share;
	int err;

	if (s->handshake.taken || s->listener)
		return -EINVAL;
	stcp_sock_mirror(s);
	/* One that dies later is noticed when TCP has connected. */
	if (!stcp_agent_there(sock_net(sk)))
		return -ESRCH;
	stcp_handshake_payer(s);
	share = stcp_share_get(agent, s->handshake.share_user, STCP_INITIATOR);
	if (IS_ERR(share))
		return PTR_ERR(share);
	stcp_handshake_begin(s, share);
	WRITE_ONCE(s->attempted, true);
	err = s->inner->ops->connect(s->inner, addr, len, O_NONBLOCK);
	if (!err)
		stcp_handshake_connected(s);
	if (!err || err == -EINPROGRESS)
		return 0;
	stcp_handshake_cancel(s, 0);
	sock_error(sk);
	WRITE_ONCE(s->attempted, false);
	stcp_state_store(sk, TCP_CLOSE);
	return err;
}

/* After an attempt that failed, or connect(AF_UNSPEC) during one. */
int stcp_disconnect(struct sock *sk, int flags)
{
	struct sockaddr_storage none = { .ss_family = AF_UNSPEC };
	struct stcp_sock *s = stcp_sk(sk);

	if (s->session || s->listener)
		return -EOPNOTSUPP;
	stcp_handshake_cancel(s, 0);
	WRITE_ONCE(s->attempted, false);
	stcp_state_store(sk, TCP_CLOSE);
	if (s->handshake.taken) {
		stcp_inner_hang_up(s);
		return -EBUSY;
	}
	s->inner->ops->connect(s->inner, (STCP_SOCKADDR *)&none, sizeof(none), flags);
	sock_error(s->inner->sk);
	sk->sk_state_change(sk);
	return 0;
}

/* -- ending ------------------------------------------------------------------------ */

/* Are there bytes that the application has not read? */
static bool stcp_sock_unread(struct stcp_sock *s)
{
	struct stcp_session *e = s->session;

	return stcp_sock_look(s, 1) || (!e->eof && !e->fatal && (e->in_end ||
							tcp_inq(s->inner->sk) > 0));
}

static void stcp_sock_last_frame(struct stcp_sock *s)
{
	struct sock *sk = stcp_outer(s);
	struct stcp_session *e = s->session;
	/* Nobody has accepted an embryo. */
	bool reset = stcp_sock_unread(s) || s->parent ||
		     (sock_flag(sk, SOCK_LINGER) && !sk->sk_lingertime);
	int err = 0;

	if (e->fatal || e->broken)
		return;
	if (reset)
		err = stcp_sock_say(s, STCP_FRAME_RESET, STCP_CODE_PLAIN_RESET);
	else if (!e->fin)
		err = stcp_sock_say(s, STCP_FRAME_FIN, 0);
	if (err)
		stcp_inner_abort(s);
}

/*
 * Called by the socket layer when nobody can use the socket any more. The work item that
 * calls it is @retry, which close() has cancelled; without a close() nothing was sent.
 */
void stcp_sock_destroy(struct sock *sk)
{
	struct stcp_sock *s = stcp_sk(sk);

	stcp_handshake_cancel(s, 0);
	/* The agent has never had it. */
	if (s->inner) {
		lock_sock(s->inner->sk);
		stcp_inner_close(s, 0);
	}
	if (s->session) {
		stcp_stat_add(sock_net(sk), STCP_STAT_SESSIONS_LIVE, -1);
		stcp_session_free(s->session);
	}
	mem_cgroup_put(s->handshake.memcg);
	sk->sk_state = TCP_CLOSE;
}

static void stcp_sock_abandoned(struct work_struct *work)
{
	struct stcp_sock *s = container_of(to_delayed_work(work), struct stcp_sock, retry);

	if (stcp_inner_close_later(s))
		sk_common_release(stcp_outer(s));
	else
		queue_delayed_work(stcp_queue, &s->retry, STCP_ABANDONED_RETRY);
}

/* Say the last word, under both locks. Return: whether the inner lock is ours now. */
static bool stcp_sock_last_word(struct stcp_sock *s)
{
	struct sock *sk = stcp_outer(s);
	bool locked;

	lock_sock(sk);
	locked = stcp_trylock(s->inner->sk, NULL);
	if (locked && s->session) {
		s->session->locked = true;
		stcp_sock_last_frame(s);
	}
	WRITE_ONCE(sk->sk_shutdown, SHUTDOWN_MASK);
	release_sock(sk);
	return locked;
}

void stcp_sock_close(struct sock *sk, long timeout)
{
	struct stcp_sock *s = stcp_sk(sk);
	bool locked;

	/* Its embryos are locked in turn, and two outer sockets never at once. */
	if (s->listener)
		stcp_listener_destroy(s);
	stcp_handshake_cancel(s, 0);
	stcp_inner_unhook(s);
	/* It would hold the lock for a moment. */
	cancel_delayed_work_sync(&s->retry);
	locked = stcp_sock_last_word(s);
	cancel_delayed_work_sync(&s->retry);
	if (!locked) {
		sock_orphan(sk);
		INIT_DELAYED_WORK(&s->retry, stcp_sock_abandoned);
		queue_delayed_work(stcp_queue, &s->retry, STCP_ABANDONED_RETRY);
		return;
	}
	/* SO_LINGER is not for who closes files for everybody. */
	stcp_inner_close(s, current->flags & PF_KTHREAD ? 0 : timeout);
	sk_common_release(sk);
}
