/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every difference between the kernels that the module builds on (6.1 to 7.x),
 * and nowhere else. Kbuild looks for them in the headers at hand,
 * rather than telling them by version, for distributions carry changes back.
 */
#ifndef _STCP_COMPAT_H
#define _STCP_COMPAT_H

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

/*
 * Options of SOL_SOCKET come to the protocol only since 6.4. Before that the
 * owner can still set them. Those that a relay cannot live with are overridden
 * one by one (leg.c, io.c).
 */
static inline void stcp_ask_for_socket_options(struct socket *sock)
{
#ifdef SOCK_CUSTOM_SOCKOPT
	set_bit(SOCK_CUSTOM_SOCKOPT, &sock->flags);
#endif
}

static inline void stcp_leave_socket_options(struct socket *sock)
{
#ifdef SOCK_CUSTOM_SOCKOPT
	clear_bit(SOCK_CUSTOM_SOCKOPT, &sock->flags);
#endif
}

#endif /* _STCP_COMPAT_H */
