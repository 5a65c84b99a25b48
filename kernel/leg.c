// SPDX-License-Identifier: GPL-2.0
/*
 * A leg: one TCP socket with the upper-layer protocol "stcp".
 *
 * Both sockets of a connection get the protocol before they are handed over,
 * so each holds a reference on the module of its own, and nothing of ours can
 * be called on a socket after the module is gone.
 *
 * What is overridden. From setsockopt(TCP_ULP) on: release (close), disconnect,
 * setsockopt and getsockopt. While relaying also send, receive, splice, poll
 * and SOL_SOCKET options: the bytes are the relay's, and poll tells EPOLLHUP when
 * it has ended and nothing before. disconnect is refused throughout, for it
 * would make a fresh socket out of one that still has our callbacks.
 *
 * sk_user_data holds the leg from TCP_ULP to close: nobody else (KCM, a sockmap)
 * can put its callbacks on the socket meanwhile. Ours are in hook.c.
 *
 * close() gives everything back in this order: relay, callbacks, sk_prot,
 * protocol data, then TCP's own close. The socket layer drops its reference on
 * the module (proto_ops->owner) after our release() has returned, so no code of
 * ours runs without one.
 */
#include <linux/module.h>
#include <linux/poll.h>
#include <net/transp_v6.h>

#include "internal.h"

struct proto stcp_bare_prots[STCP_FAMILIES];
struct proto stcp_relay_prots[STCP_FAMILIES];
struct proto_ops stcp_bare_ops[STCP_FAMILIES];
struct proto_ops stcp_relay_ops[STCP_FAMILIES];
/* What stcp_bare_ops[] and stcp_relay_ops[] were made from, at the first socket of its family. */
static const struct proto_ops *stcp_base_ops[STCP_FAMILIES];
static DEFINE_MUTEX(stcp_ops_mutex);

/* Call with the socket locked, or with its file held. */
struct stcp_leg *stcp_leg_of(const struct sock *sk)
{
	return rcu_dereference_raw(inet_csk(sk)->icsk_ulp_data);
}

/* -- what user space may not do with a leg --------------------------------- */

static int stcp_refuse_disconnect(struct sock *sk, int flags)
{
	return -EBUSY;
}

static int stcp_refuse_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)
{
	return -EBUSY;
}

static int stcp_refuse_recvmsg STCP_RECVMSG_ARGS
{
	return -EBUSY;
}

static int stcp_refuse_rcvlowat(struct sock *sk, int val)
{
	return -EBUSY;
}

static ssize_t stcp_refuse_splice(struct socket *sock, loff_t *ppos,
				  struct pipe_inode_info *pipe, size_t len,
				  unsigned int flags)
{
	return -EBUSY;
}

static __poll_t stcp_poll(struct file *file, struct socket *sock,
			  struct poll_table_struct *wait)
{
	struct sock *sk = sock->sk;
	struct stcp_leg *leg = stcp_leg_of(sk);
	bool ended;

	sock_poll_wait(file, sock, wait);
	if (!leg)
		return 0;
	/* STCP_GIVE_BACK may take the relay away meanwhile. */
	read_lock_bh(&sk->sk_callback_lock);
	/* A plain leg that somebody kept open has lost its relay by the end. */
	if (!leg->wire || !leg->relay)
		ended = leg->over;
	else	/* Pairs with stcp_finish(). */
		ended = smp_load_acquire(&leg->relay->ended);
	read_unlock_bh(&sk->sk_callback_lock);
	return ended ? EPOLLHUP : 0;
}

/* -- putting the protocol on and taking it off ----------------------------- */

static int stcp_release(struct socket *sock)
{
	struct sock *sk = sock->sk;
	struct inet_connection_sock *icsk = inet_csk(sk);
	const struct proto_ops *base_ops;
	struct stcp_leg *leg;

	/* What accept() of a leg has made, before it failed: our operations, no socket. */
	if (!sk)
		return 0;
	leg = stcp_leg_of(sk);
	base_ops = leg->base_ops;
	/* Only a wire leg gets here with a relay: a relay pins its plain leg. */
	if (leg->relay)
		stcp_relay_destroy(leg->relay);

	lock_sock(sk);
	WRITE_ONCE(sk->sk_prot, (struct proto *)leg->base);
	/* A setsockopt(SO_LINGER) may have begun before the handover. */
	if (leg->role == STCP_ROLE_RELAYING)
		sock_reset_flag(sk, SOCK_LINGER);
	sk->sk_allocation = GFP_KERNEL;
	/* An error report that began before unhooking may still look at the leg. */
	write_lock_bh(&sk->sk_callback_lock);
	if (sk->sk_user_data == leg)
		rcu_assign_sk_user_data(sk, NULL);
	rcu_assign_pointer(icsk->icsk_ulp_data, NULL);
	write_unlock_bh(&sk->sk_callback_lock);
	icsk->icsk_ulp_ops = NULL;
	release_sock(sk);
	kfree(leg);
	/* TCP's reference; the socket layer still has its own. */
	module_put(THIS_MODULE);
	return base_ops->release(sock);
}

static int stcp_family_of(const struct sock *sk)
{
	if (READ_ONCE(sk->sk_prot) == &tcp_prot)
		return STCP_IPV4;
#if IS_ENABLED(CONFIG_IPV6)
	if (READ_ONCE(sk->sk_prot) == &tcpv6_prot)
		return STCP_IPV6;
#endif
	return -EOPNOTSUPP;
}

/*
 * inet6_stream_ops is not exported everywhere, so the operations to start from
 * are taken from the first socket of a family; any other ones are refused.
 */
static int stcp_learn_ops(int family, const struct proto_ops *base)
{
	int err = 0;

	mutex_lock(&stcp_ops_mutex);
	if (!stcp_base_ops[family]) {
		stcp_bare_ops[family] = *base;
		stcp_bare_ops[family].owner = THIS_MODULE;
		stcp_bare_ops[family].release = stcp_release;
		stcp_relay_ops[family] = stcp_bare_ops[family];
		stcp_relay_ops[family].poll = stcp_poll;
		stcp_relay_ops[family].set_rcvlowat = stcp_refuse_rcvlowat;
		stcp_relay_ops[family].splice_read = stcp_refuse_splice;
		stcp_base_ops[family] = base;
	} else if (stcp_base_ops[family] != base) {
		err = -EOPNOTSUPP;
	}
	mutex_unlock(&stcp_ops_mutex);
	return err;
}

static bool stcp_connected(const struct sock *sk)
{
	return (1 << sk->sk_state) & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT);
}

static bool stcp_claim_user_data(struct sock *sk, struct stcp_leg *leg)
{
	bool free;

	write_lock_bh(&sk->sk_callback_lock);
	free = !sk->sk_user_data;
	if (free)
		rcu_assign_sk_user_data(sk, leg);
	write_unlock_bh(&sk->sk_callback_lock);
	return free;
}

/* setsockopt(TCP_ULP, "stcp"); TCP holds the socket lock. */
static int stcp_leg_init(struct sock *sk)
{
	struct stcp_leg *leg;
	int family, err;

	if (!stcp_connected(sk))
		return -ENOTCONN;
	if (!sk->sk_socket)
		return -EBUSY;
	family = stcp_family_of(sk);
	if (family < 0)
		return family;
	err = stcp_learn_ops(family, sk->sk_socket->ops);
	if (err)
		return err;
	leg = kzalloc(sizeof(*leg), GFP_KERNEL_ACCOUNT);
	if (!leg)
		return -ENOMEM;
	leg->sk = sk;
	leg->family = family;
	leg->base = sk->sk_prot;
	leg->base_ops = sk->sk_socket->ops;
	if (!stcp_claim_user_data(sk, leg)) {
		kfree(leg);
		return -EBUSY;
	}
	/* The socket layer gives it back after stcp_release(). */
	__module_get(THIS_MODULE);
	rcu_assign_pointer(inet_csk(sk)->icsk_ulp_data, leg);
	/* Whoever finds our operations finds the leg. */
	smp_store_release(&sk->sk_prot, &stcp_bare_prots[family]);
	/* And so for these. */
	smp_store_release(&sk->sk_socket->ops, &stcp_bare_ops[family]);
	return 0;
}

struct tcp_ulp_ops stcp_ulp_ops __read_mostly = {
	.name	= STCP_ULP_NAME,
	.owner	= THIS_MODULE,
	.init	= stcp_leg_init,
};

static void stcp_build_prots(int family, const struct proto *base)
{
	struct proto *prot = &stcp_bare_prots[family];

	*prot = *base;
	prot->disconnect = stcp_refuse_disconnect;
	prot->setsockopt = stcp_setsockopt;
	prot->getsockopt = stcp_getsockopt;

	prot = &stcp_relay_prots[family];
	*prot = stcp_bare_prots[family];
	prot->sendmsg = stcp_refuse_sendmsg;
	prot->recvmsg = stcp_refuse_recvmsg;
	prot->release_cb = stcp_release_cb;
	STCP_REFUSE_SENDPAGE(prot);
}

void stcp_legs_init(void)
{
	stcp_build_prots(STCP_IPV4, &tcp_prot);
#if IS_ENABLED(CONFIG_IPV6)
	stcp_build_prots(STCP_IPV6, &tcpv6_prot);
#endif
}

/* -- handing over ---------------------------------------------------------- */

/**
 * stcp_leg_claim() - reserve a socket for a relay that is being made
 * @sk: any socket whose file the caller holds
 * @claimed: the leg
 *
 * Return: 0; -EINVAL where the protocol is not on, -ENOTCONN, or -EBUSY for a
 * leg that relays already.
 */
int stcp_leg_claim(struct sock *sk, struct stcp_leg **claimed)
{
	struct stcp_leg *leg;
	int err = 0;

	if (!(sk->sk_family == AF_INET || sk->sk_family == AF_INET6) ||
	    sk->sk_type != SOCK_STREAM || sk->sk_protocol != IPPROTO_TCP)
		return -EOPNOTSUPP;
	lock_sock(sk);
	leg = stcp_leg_of(sk);
	if (inet_csk(sk)->icsk_ulp_ops != &stcp_ulp_ops) {
		err = -EINVAL;
	} else if (leg->role != STCP_ROLE_BARE) {
		err = -EBUSY;
	} else if (!stcp_connected(sk)) {
		err = -ENOTCONN;
	} else {
		leg->role = STCP_ROLE_CLAIMED;
		*claimed = leg;
	}
	release_sock(sk);
	return err;
}

void stcp_leg_unclaim(struct stcp_leg *leg)
{
	lock_sock(leg->sk);
	leg->role = STCP_ROLE_BARE;
	release_sock(leg->sk);
}
