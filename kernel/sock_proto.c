// SPDX-License-Identifier: GPL-2.0
/*
 * The outer socket as the socket layer sees it: its operations, and the entries by which
 * socket(AF_INET or AF_INET6, SOCK_STREAM, protocol) finds them.
 *
 * poll() takes no lock. It says EPOLLIN when a whole frame, the end or an error is
 * there, and EPOLLOUT when a frame would find room. EPOLLHUP and EPOLLERR also report the
 * end of TCP's connection, before a call of the application finds it. As with TCP,
 * EPOLLERR is there until a call or SO_ERROR has reported the error.
 */
#include <linux/module.h>
#include <linux/poll.h>
#include <net/inet_common.h>
#include <net/protocol.h>
#include <net/transp_v6.h>
#include <asm/ioctls.h>

#include "sock_internal.h"

/* Off until the kernel's checkers (KASAN, lockdep, kmemleak, KCSAN) have seen it. */
static int protocol;
module_param(protocol, int, 0444);
MODULE_PARM_DESC(protocol, "Protocol number of socket(): 253 or 254 [default: 0, no such sockets]");

static int stcp_op_connect STCP_CONNECT_ARGS
{
	if (addr_len >= (int)sizeof(uaddr->sa_family) && uaddr->sa_family == AF_UNSPEC &&
	    inet_sk_state_load(sock->sk) != TCP_SYN_SENT &&
	    inet_sk_state_load(sock->sk) != TCP_CLOSE)
		return -EOPNOTSUPP;
	return inet_stream_connect(sock, uaddr, addr_len, flags);
}

static int stcp_op_bind STCP_BIND_ARGS
{
	struct stcp_sock *s = stcp_sk(sock->sk);
	int err;

	lock_sock(sock->sk);
	stcp_sock_mirror(s);
	err = inet_sk_state_load(sock->sk) != TCP_CLOSE ? -EINVAL :
	      s->inner->ops->bind(s->inner, uaddr, addr_len);
	release_sock(sock->sk);
	return err;
}

static int stcp_op_accept STCP_ACCEPT_ARGS
{
	return stcp_listener_accept(sock, newsock, STCP_ACCEPT_FLAGS);
}

static int stcp_op_getname(struct socket *sock, struct sockaddr *addr, int peer)
{
	struct socket *inner = stcp_sk(sock->sk)->inner;

	if (peer == 1 && inet_sk_state_load(sock->sk) != TCP_ESTABLISHED)
		return -ENOTCONN;
	return READ_ONCE(inner->ops)->getname(inner, addr, peer);
}

/* -- bytes ------------------------------------------------------------------------- */

static int stcp_op_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)
{
	return stcp_sock_sendmsg(sock->sk, msg, len);
}

static int stcp_op_recvmsg(struct socket *sock, struct msghdr *msg, size_t len,
			   int flags)
{
	return stcp_sock_recv(sock->sk, msg, len, flags);
}

/*
 * The state of TCP's connection under a session. Its error is in sk_err of the outer
 * socket until somebody has read it (stcp_session_report()).
 */
static __poll_t stcp_poll_inner(const struct sock *isk)
{
	if (inet_sk_state_load(isk) == TCP_CLOSE)
		return EPOLLHUP | EPOLLRDHUP;
	return READ_ONCE(isk->sk_shutdown) & RCV_SHUTDOWN ? EPOLLRDHUP : 0;
}

static __poll_t stcp_op_poll(struct file *file, struct socket *sock,
			     struct poll_table_struct *wait)
{
	struct sock *sk = sock->sk;
	struct stcp_sock *s = stcp_sk(sk);
	__poll_t mask = 0;
	u8 shut;
	int state;

	sock_poll_wait(file, sock, wait);
	/* Pairs with stcp_handshake_leave(): a session is there. */
	state = inet_sk_state_load(sk);
	if (state == TCP_LISTEN)
		return READ_ONCE(s->listener->ready_count) ? EPOLLIN | EPOLLRDNORM : 0;
	shut = READ_ONCE(sk->sk_shutdown);
	if (shut == SHUTDOWN_MASK || state == TCP_CLOSE)
		mask |= EPOLLHUP;
	if (shut & RCV_SHUTDOWN)
		mask |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	if (state == TCP_ESTABLISHED)
		mask |= stcp_sock_readable(s) | stcp_sock_writable(s) |
			stcp_poll_inner(s->inner->sk);
	else if (state == TCP_CLOSE)
		mask |= EPOLLOUT | EPOLLWRNORM;
	/* As TCP: until connect() makes a fresh socket of it. */
	if (state == TCP_CLOSE && READ_ONCE(s->attempted))
		mask |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	if (READ_ONCE(sk->sk_err))
		mask |= EPOLLERR;
	return mask;
}

static int stcp_op_ioctl(struct socket *sock, unsigned int cmd, unsigned long arg)
{
	struct sock *sk = sock->sk;
	const struct tcp_sock *tp = tcp_sk(stcp_sk(sk)->inner->sk);
	int n;

	switch (cmd) {
	case SIOCINQ:
		n = stcp_sock_inq(sk);
		break;
	case SIOCOUTQ:
	case SIOCOUTQNSD:
		if (inet_sk_state_load(sk) == TCP_LISTEN)
			return -EINVAL;
		n = READ_ONCE(tp->write_seq) -
		    (cmd == SIOCOUTQ ? READ_ONCE(tp->snd_una) : READ_ONCE(tp->snd_nxt));
		/* These are bytes of TCP and of the agent. */
		if (inet_sk_state_load(sk) == TCP_SYN_SENT)
			n = 0;
		break;
	case SIOCATMARK:
		/* There are no urgent bytes. */
		n = 0;
		break;
	default:
#if IS_ENABLED(CONFIG_IPV6)
		if (sk->sk_family == AF_INET6)
			return inet6_ioctl(sock, cmd, arg);
#endif
		return inet_ioctl(sock, cmd, arg);
	}
	return n < 0 ? n : put_user(n, (int __user *)arg);
}

/* -- shutdown() --------------------------------------------------------------------- */

static int stcp_shutdown_send(struct stcp_sock *s)
{
	struct sock *sk = stcp_outer(s);
	int err;

	if (sk->sk_shutdown & SEND_SHUTDOWN)
		return 0;
	WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | SEND_SHUTDOWN);
	err = stcp_sock_say(s, STCP_FRAME_FIN, 0);
	if (err == -EAGAIN || err == -ENOMEM)
		stcp_session_abort(s, STCP_END_INTERNAL_ERROR, err);
	return 0;
}

static int stcp_shutdown_session(struct stcp_sock *s, int how)
{
	struct sock *sk = stcp_outer(s);
	int err = 0;

	if (s->session->fatal)
		return -ENOTCONN;
	if (how & SEND_SHUTDOWN)
		err = stcp_shutdown_send(s);
	if (how & RCV_SHUTDOWN)
		WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | RCV_SHUTDOWN);
	sk->sk_state_change(sk);
	return err;
}

static int stcp_shutdown_locked(struct socket *sock, int how)
{
	struct sock *sk = sock->sk;
	struct stcp_sock *s = stcp_sk(sk);
	int err;

	switch (inet_sk_state_load(sk)) {
	case TCP_LISTEN:
		if (how & RCV_SHUTDOWN)
			stcp_listener_shutdown(s);
		return 0;
	case TCP_SYN_SENT:
		stcp_handshake_cancel(s, -ECONNABORTED);
		/* DONE may have come first. */
		if (inet_sk_state_load(sk) == TCP_ESTABLISHED)
			return stcp_shutdown_session(s, how);
		err = stcp_disconnect(sk, O_NONBLOCK);
		sock->state = err ? SS_DISCONNECTING : SS_UNCONNECTED;
		return 0;
	case TCP_ESTABLISHED:
		return stcp_shutdown_session(s, how);
	default:
		return -ENOTCONN;
	}
}

static int stcp_op_shutdown(struct socket *sock, int how)
{
	int err;

	if (how < SHUT_RD || how > SHUT_RDWR)
		return -EINVAL;
	lock_sock(sock->sk);
	/* SHUT_RD, SHUT_WR, SHUT_RDWR become RCV_SHUTDOWN, SEND_SHUTDOWN, both. */
	err = stcp_shutdown_locked(sock, how + 1);
	release_sock(sock->sk);
	return err;
}

/* -- registering ------------------------------------------------------------------- */

/* The outer socket is in no table of its own: TCP finds the inner one. */
static int stcp_hash(struct sock *sk)
{
	return 0;
}

static void stcp_unhash(struct sock *sk)
{
}

static struct proto stcp_prot = {
	.name		= "STCP",
	.owner		= THIS_MODULE,
	.close		= stcp_sock_close,
	.connect	= stcp_connect,
	.disconnect	= stcp_disconnect,
	.init		= stcp_sock_init,
	.destroy	= stcp_sock_destroy,
	.setsockopt	= stcp_sock_setsockopt,
	.getsockopt	= stcp_sock_getsockopt,
	.keepalive	= stcp_sock_keepalive,
	.hash		= stcp_hash,
	.unhash		= stcp_unhash,
	.obj_size	= sizeof(struct stcp_sock),
	.no_autobind	= true,
};

static struct proto_ops stcp_ops = {
	.family		= PF_INET,
	.owner		= THIS_MODULE,
	.release	= inet_release,
	.bind		= stcp_op_bind,
	.connect	= stcp_op_connect,
	.socketpair	= sock_no_socketpair,
	.accept		= stcp_op_accept,
	.getname	= stcp_op_getname,
	.poll		= stcp_op_poll,
	.ioctl		= stcp_op_ioctl,
	.gettstamp	= sock_gettstamp,
	.listen		= stcp_sock_listen,
	.shutdown	= stcp_op_shutdown,
	.setsockopt	= sock_common_setsockopt,
	.getsockopt	= sock_common_getsockopt,
	.sendmsg	= stcp_op_sendmsg,
	.recvmsg	= stcp_op_recvmsg,
	.mmap		= sock_no_mmap,
};

static struct inet_protosw stcp_protosw = {
	.type		= SOCK_STREAM,
	.prot		= &stcp_prot,
	.ops		= &stcp_ops,
};

#if IS_ENABLED(CONFIG_IPV6)
static struct proto stcp6_prot;

static struct proto_ops stcp6_ops;

static struct inet_protosw stcp6_protosw = {
	.type		= SOCK_STREAM,
	.prot		= &stcp6_prot,
	.ops		= &stcp6_ops,
};

static bool stcp6_registered;

static int stcp_socks6_init(void)
{
	int err;

	stcp6_prot = stcp_prot;
	strscpy(stcp6_prot.name, "STCPv6", sizeof(stcp6_prot.name));
	stcp6_prot.slab = NULL;
	stcp6_prot.obj_size = sizeof(struct stcp6_sock);
	STCP_IPV6_OFFSET(stcp6_prot, struct stcp6_sock, inet6);
	stcp6_ops = stcp_ops;
	stcp6_ops.family = PF_INET6;
	stcp6_ops.release = inet6_release;
	stcp6_protosw.protocol = protocol;
	err = proto_register(&stcp6_prot, 1);
	if (err)
		return err;
	err = inet6_register_protosw(&stcp6_protosw);
	if (err)
		proto_unregister(&stcp6_prot);
	else
		stcp6_registered = true;
	return err;
}

static void stcp_socks6_exit(void)
{
	if (!stcp6_registered)
		return;
	inet6_unregister_protosw(&stcp6_protosw);
	proto_unregister(&stcp6_prot);
}
#else
static int stcp_socks6_init(void)
{
	return 0;
}

static void stcp_socks6_exit(void)
{
}
#endif

static int stcp_socks4_init(void)
{
	int err;

	stcp_protosw.protocol = protocol;
	STCP_COPY_SENDPAGE(&stcp_ops);
	err = proto_register(&stcp_prot, 1);
	if (err)
		return err;
	inet_register_protosw(&stcp_protosw);
	return 0;
}

static void stcp_socks4_exit(void)
{
	inet_unregister_protosw(&stcp_protosw);
	proto_unregister(&stcp_prot);
}

/* Everything about sockets of the protocol, where the module's parameter asks for it. */
int stcp_socks_init(void)
{
	int err;

	if (!protocol)
		return 0;
	/* The others belong to somebody. */
	if (protocol != 253 && protocol != 254)
		return -EINVAL;
	err = stcp_agents_init();
	if (err)
		return err;
	err = stcp_netlink_init();
	if (err)
		goto err_agents;
	err = stcp_socks4_init();
	if (err)
		goto err_netlink;
	err = stcp_socks6_init();
	if (!err)
		return 0;
	stcp_socks4_exit();
err_netlink:
	stcp_netlink_exit();
err_agents:
	stcp_agents_exit();
	return err;
}

void stcp_socks_exit(void)
{
	if (!protocol)
		return;
	stcp_socks6_exit();
	stcp_socks4_exit();
	stcp_netlink_exit();
	/* It waits for callbacks of TCP that are on their way out of our code. */
	stcp_agents_exit();
}
