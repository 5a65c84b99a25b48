// SPDX-License-Identifier: GPL-2.0
/*
 * What the agent may do with an inner socket, and the end of that.
 *
 * While the handshake lasts, the agent has a descriptor of the inner socket and talks
 * on it as on any other. What would let our callbacks outlive the outer socket is
 * refused (stcp_inner_hold()): an upper-layer protocol saves them and puts them
 * back later, and a listener hands them down to its children. The descriptor
 * holds a reference on the module. IPV6_ADDRFORM is refused too: it would put other
 * operations on the socket, and the reference would never be given back.
 *
 * The end of the handshake takes the inner socket away: stcp_inner_seize() refuses an
 * inner socket with which the agent has done more than talk, and puts operations on it
 * that refuse everything but its addresses. Options of SOL_SOCKET are the socket layer's:
 * reading them is never refused, setting them only where the kernel asks the protocol
 * (stcp_ask_for_socket_options()). The descriptor may stay open. A call that began before
 * and still waits is not recalled: an agent has the keys of its connections anyway.
 *
 * The module itself does not use the operations of the inner socket from then on,
 * but calls TCP.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <net/transp_v6.h>

#include "sock_internal.h"

/* connect() may still be on its way out of TCP when the agent is done already. */
#define STCP_SEIZE_TRIES	50

/* What an inner socket is at first, in the hands of the agent, and then, by family. */
static const struct proto_ops *stcp_inner_ops[STCP_FAMILIES];
static struct proto_ops stcp_held_ops[STCP_FAMILIES];
static struct proto_ops stcp_seized_ops[STCP_FAMILIES];
static DEFINE_MUTEX(stcp_inner_mutex);

static int stcp_inner_family(const struct sock *isk)
{
	return isk->sk_family == AF_INET6 ? STCP_IPV6 : STCP_IPV4;
}

static int stcp_refuse_bind STCP_BIND_ARGS
{
	return -EBUSY;
}

static int stcp_refuse_connect STCP_CONNECT_ARGS
{
	return -EBUSY;
}

static int stcp_refuse_accept STCP_ACCEPT_ARGS
{
	return -EBUSY;
}

static int stcp_refuse_listen(struct socket *sock, int backlog)
{
	return -EBUSY;
}

static int stcp_refuse_shutdown(struct socket *sock, int how)
{
	return -EBUSY;
}

static int stcp_refuse_ioctl(struct socket *sock, unsigned int cmd, unsigned long arg)
{
	return -EBUSY;
}

static int stcp_refuse_setsockopt(struct socket *sock, int level, int optname,
				  sockptr_t optval, unsigned int optlen)
{
	return -EBUSY;
}

static int stcp_refuse_getsockopt(struct socket *sock, int level, int optname,
				  char __user *optval, int __user *optlen)
{
	return -EBUSY;
}

static int stcp_refuse_send(struct socket *sock, struct msghdr *msg, size_t len)
{
	return -EBUSY;
}

static int stcp_refuse_recv(struct socket *sock, struct msghdr *msg, size_t len,
			    int flags)
{
	return -EBUSY;
}

static ssize_t stcp_refuse_splice_read(struct socket *sock, loff_t *ppos,
				       struct pipe_inode_info *pipe, size_t len,
				       unsigned int flags)
{
	return -EBUSY;
}

static int stcp_refuse_lowat(struct sock *sk, int val)
{
	return -EBUSY;
}

static int stcp_refuse_mmap(struct file *file, struct socket *sock,
			    struct vm_area_struct *vma)
{
	return -EBUSY;
}

static __poll_t stcp_seized_poll(struct file *file, struct socket *sock,
				 struct poll_table_struct *wait)
{
	return EPOLLHUP;
}

static int stcp_held_setsockopt(struct socket *sock, int level, int optname,
				sockptr_t optval, unsigned int optlen)
{
	if ((level == SOL_TCP && optname == TCP_ULP) ||
	    (level == SOL_IPV6 && optname == IPV6_ADDRFORM))
		return -EBUSY;
	return sock_common_setsockopt(sock, level, optname, optval, optlen);
}

/*
 * inet6_stream_ops is not exported everywhere, so the operations are taken from the
 * first inner socket of a family, and TCP's callbacks with them. The owner's reference
 * keeps sockets with ours from outliving the module.
 */
void stcp_inner_learn_ops(const struct socket *inner)
{
	int family = stcp_inner_family(inner->sk);
	struct proto_ops *ops = &stcp_held_ops[family];

	mutex_lock(&stcp_inner_mutex);
	if (!stcp_inner_ops[family]) {
		*ops = *inner->ops;
		ops->owner = THIS_MODULE;
		ops->bind = stcp_refuse_bind;
		ops->connect = stcp_refuse_connect;
		ops->listen = stcp_refuse_listen;
		ops->setsockopt = stcp_held_setsockopt;

		ops = &stcp_seized_ops[family];
		*ops = stcp_held_ops[family];
		ops->accept = stcp_refuse_accept;
		ops->shutdown = stcp_refuse_shutdown;
		ops->ioctl = stcp_refuse_ioctl;
#ifdef CONFIG_COMPAT
		ops->compat_ioctl = NULL;
#endif
		ops->setsockopt = stcp_refuse_setsockopt;
		ops->getsockopt = stcp_refuse_getsockopt;
		ops->sendmsg = stcp_refuse_send;
		ops->recvmsg = stcp_refuse_recv;
		STCP_REFUSE_SENDPAGE_OP(ops);
		ops->splice_read = stcp_refuse_splice_read;
		ops->set_rcvlowat = stcp_refuse_lowat;
		ops->mmap = stcp_refuse_mmap;
		ops->poll = stcp_seized_poll;
		stcp_inner_ops[family] = inner->ops;
		stcp_inner_learn_callbacks(inner->sk);
	}
	mutex_unlock(&stcp_inner_mutex);
}

/* The agent gets a descriptor of the inner socket. Does not sleep. */
void stcp_inner_hold(struct socket *inner)
{
	__module_get(THIS_MODULE);
	WRITE_ONCE(inner->ops, &stcp_held_ops[stcp_inner_family(inner->sk)]);
}

static int stcp_inner_check(struct socket *inner)
{
	struct sock *isk = inner->sk;
	const struct proto *prot = &tcp_prot;

#if IS_ENABLED(CONFIG_IPV6)
	if (isk->sk_family == AF_INET6)
		prot = &tcpv6_prot;
#endif
	if (READ_ONCE(inner->ops) != &stcp_held_ops[stcp_inner_family(isk)] ||
	    READ_ONCE(isk->sk_prot) != prot || inet_csk_has_ulp(isk))
		return -ECONNABORTED;
	if (isk->sk_state == TCP_CLOSE)
		return -ECONNRESET;
	/* A peer that has sent all it had to say may have closed already. */
	if (!((1 << isk->sk_state) & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT)) ||
	    (isk->sk_shutdown & SEND_SHUTDOWN) || tcp_sk(isk)->repair)
		return -ECONNABORTED;
	return 0;
}

/* A frame has to find room in the receive queue, which it leaves as a whole. */
static void stcp_inner_tune(struct sock *isk)
{
	sock_reset_flag(isk, SOCK_LINGER);
	WRITE_ONCE(isk->sk_tsflags, 0);
	if (isk->sk_rcvbuf < STCP_MIN_RCVBUF) {
		WRITE_ONCE(isk->sk_rcvbuf, STCP_MIN_RCVBUF);
		WRITE_ONCE(tcp_sk(isk)->window_clamp,
			   tcp_win_from_space(isk, STCP_MIN_RCVBUF));
	}
}

/*
 * Take the inner socket from the agent. Return: 0; -ECONNABORTED for one that is not as
 * it was handed out; -ECONNRESET for one that is not connected any more; -EBUSY when a
 * call of the agent goes on holding it.
 */
int stcp_inner_seize(struct socket *inner, struct stcp_session *e)
{
	struct sock *isk = inner->sk;
	int err, tries;

	for (tries = 0; !stcp_trylock(isk, NULL); tries++) {
		if (tries == STCP_SEIZE_TRIES)
			return -EBUSY;
		usleep_range(1000, 2000);
	}
	err = stcp_inner_check(inner);
	if (!err) {
		stcp_inner_tune(isk);
		stcp_inner_expect(e, isk);
		stcp_ask_for_socket_options(inner);
		WRITE_ONCE(inner->ops, &stcp_seized_ops[stcp_inner_family(isk)]);
	}
	stcp_unlock(isk);
	return err;
}
