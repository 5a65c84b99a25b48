/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every difference between the kernels that the module builds on (6.1 to 7.x),
 * and nowhere else. Kbuild looks for them in the headers at hand,
 * rather than telling them by version, for distributions carry changes back.
 */
#ifndef _STCP_COMPAT_H
#define _STCP_COMPAT_H

#include <linux/net.h>
#include <net/sock.h>

/* Moved in 6.12. */
#ifdef STCP_LINUX_UNALIGNED
#include <linux/unaligned.h>
#else
#include <asm/unaligned.h>
#endif

/* proto->recvmsg lost its addr_len in 7.x. */
#ifdef STCP_RECVMSG_ADDR_LEN
#define STCP_RECVMSG_ARGS \
	(struct sock *sk, struct msghdr *msg, size_t len, int flags, int *addr_len)

static inline int stcp_proto_recvmsg(const struct proto *proto, struct sock *sk,
				     struct msghdr *msg, size_t len, int flags)
{
	int addr_len = 0;

	return proto->recvmsg(sk, msg, len, flags, &addr_len);
}
#else
#define STCP_RECVMSG_ARGS \
	(struct sock *sk, struct msghdr *msg, size_t len, int flags)

static inline int stcp_proto_recvmsg(const struct proto *proto, struct sock *sk,
				     struct msghdr *msg, size_t len, int flags)
{
	return proto->recvmsg(sk, msg, len, flags);
}
#endif

/* sendpage went away with 6.5. */
#ifdef STCP_HAVE_SENDPAGE
#define STCP_REFUSE_SENDPAGE(proto) ((proto)->sendpage = stcp_refuse_sendpage)

static inline int stcp_refuse_sendpage(struct sock *sk, struct page *page,
				       int offset, size_t size, int flags)
{
	return -EBUSY;
}
#else
#define STCP_REFUSE_SENDPAGE(proto) do { } while (0)
#endif

/* The same for the operations of a socket: the socket layer copies without one. */
#ifdef STCP_HAVE_SENDPAGE
#define STCP_COPY_SENDPAGE(ops) ((ops)->sendpage = sock_no_sendpage)
#define STCP_REFUSE_SENDPAGE_OP(ops) ((ops)->sendpage = stcp_refuse_sendpage_op)

static inline ssize_t stcp_refuse_sendpage_op(struct socket *sock, struct page *page,
					      int offset, size_t size, int flags)
{
	return -EBUSY;
}
#else
#define STCP_COPY_SENDPAGE(ops) do { } while (0)
#define STCP_REFUSE_SENDPAGE_OP(ops) do { } while (0)
#endif

/* Addresses got a type of their own in 7.x. */
#ifdef STCP_SOCKADDR_UNSIZED
#define STCP_SOCKADDR	struct sockaddr_unsized
#define STCP_BIND_ARGS \
	(struct socket *sock, struct sockaddr_unsized *uaddr, int addr_len)
#define STCP_CONNECT_ARGS \
	(struct socket *sock, struct sockaddr_unsized *uaddr, int addr_len, int flags)
#else
#define STCP_SOCKADDR	struct sockaddr
#define STCP_BIND_ARGS \
	(struct socket *sock, struct sockaddr *uaddr, int addr_len)
#define STCP_CONNECT_ARGS \
	(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)
#endif

/* accept() takes its arguments in a struct since 6.10. */
#ifdef STCP_ACCEPT_STRUCT
#define STCP_ACCEPT_ARGS \
	(struct socket *sock, struct socket *newsock, struct proto_accept_arg *arg)
#define STCP_ACCEPT_FLAGS	(arg->flags)
#else
#define STCP_ACCEPT_ARGS \
	(struct socket *sock, struct socket *newsock, int flags, bool kern)
#define STCP_ACCEPT_FLAGS	flags
#endif

/* Where IPv6 finds its part of a socket; before 6.5 it is always the end. */
#ifdef STCP_IPV6_PINFO_OFFSET
#define STCP_IPV6_OFFSET(prot, type, member) \
	((prot).ipv6_pinfo_offset = offsetof(type, member))
#else
#define STCP_IPV6_OFFSET(prot, type, member) do { } while (0)
#endif

/*
 * System calls that sleep in a socket fail with EPIPE once they are woken. Without the
 * counter, which came with 6.6 and to older kernels later, they sleep on. Call under the
 * socket lock.
 */
static inline void stcp_end_sleepers(struct sock *sk)
{
#ifdef STCP_HAVE_DISCONNECTS
	sk->sk_disconnects++;
#endif
}

/* Renamed in 6.2, and the old names went away with 6.15. */
#ifdef STCP_TIMER_DELETE
#define stcp_timer_delete(timer)	timer_delete(timer)
#define stcp_timer_delete_sync(timer)	timer_delete_sync(timer)
#else
#define stcp_timer_delete(timer)	del_timer(timer)
#define stcp_timer_delete_sync(timer)	del_timer_sync(timer)
#endif

/* Renamed after 6.12; 7.x complains of the old name. */
#ifdef STCP_SYSTEM_DFL_WQ
#define STCP_UNBOUND_WQ	system_dfl_wq
#else
#define STCP_UNBOUND_WQ	system_unbound_wq
#endif

/* Tables of sysctl ended with an empty entry before they had a size, in 6.6. */
#ifdef STCP_SYSCTL_SIZE
#define stcp_register_sysctl(net, path, table, size) \
	register_net_sysctl_sz(net, path, table, size)
#else
#define stcp_register_sysctl(net, path, table, size) \
	register_net_sysctl(net, path, table)
#endif

/*
 * Options of SOL_SOCKET come to the protocol only since 6.4. Before that the
 * owner can still set them. Those that a relay cannot live with are overridden
 * one by one (leg.c, io.c).
 */
static inline void stcp_ask_for_socket_options(struct socket *sock)
{
#ifdef STCP_ASK_SOCKET_OPTIONS
	set_bit(SOCK_CUSTOM_SOCKOPT, &sock->flags);
#endif
}

static inline void stcp_leave_socket_options(struct socket *sock)
{
#ifdef STCP_ASK_SOCKET_OPTIONS
	clear_bit(SOCK_CUSTOM_SOCKOPT, &sock->flags);
#endif
}

#endif /* _STCP_COMPAT_H */
