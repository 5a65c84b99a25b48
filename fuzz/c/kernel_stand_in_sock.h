/* What the sockets of the protocol use beyond kernel_stand_in.h: the outer socket, waiting, and the application's buffer. */
#ifndef KERNEL_STAND_IN_SOCK_H
#define KERNEL_STAND_IN_SOCK_H

#include <sys/epoll.h>

#include "kernel_stand_in.h"

typedef unsigned int __poll_t;
struct ctl_table;
struct ctl_table_header;
struct cred;
struct msghdr;
struct timer_list {
	int unused;
};
struct inet_sock {
	struct sock sk;
};
struct ipv6_pinfo {
	int unused;
};
struct hlist_node {
	struct hlist_node *next;
};
struct hlist_head {
	struct hlist_node *first;
};
#define STCP_SOCKADDR struct sockaddr

#define list_for_each_entry_safe(at, after, head, member)                                                                                  \
	for (at = container_of((head)->next, __typeof__(*at), member), after = container_of(at->member.next, __typeof__(*at), member);     \
	     &at->member != (head); at = after, after = container_of(at->member.next, __typeof__(*at), member))

/* -- waiting: the harness never waits, so a call that would is a fault ---- */
#define DEFINE_WAIT_FUNC(name, function) int name = 0
#define sk_sleep(sk) ((void *)(sk))
#define add_wait_queue(queue, wait) ((void)(queue), (void)(wait))
#define remove_wait_queue(queue, wait) ((void)(queue), (void)(wait))
#define sk_set_bit(bit, sk) ((void)(sk))
#define sk_clear_bit(bit, sk) ((void)(sk))
#define sk_wait_event(sk, timeo, condition, wait) (CHECK(!"nobody waits here"), (void)(condition), (void)(wait), *(timeo) = 0, 0)
#define sk_stream_wait_connect(sk, timeo) (CHECK(!"nobody connects here"), (void)(timeo), 0)
#define signal_pending(task) false
#define sock_intr_errno(timeo) (-EINTR)
#define sock_rcvtimeo(sk, now) ((now) ? 0 : LONG_MAX)

static inline int sock_error(struct sock *sk)
{
	int err = sk->sk_err;

	sk->sk_err = 0;
	return -err;
}

static inline int sock_rcvlowat(const struct sock *sk, int waitall, size_t len)
{
	int v = waitall ? (int)len : min((int)len, sk->sk_rcvlowat);

	return v ? v : 1;
}

/* A full window makes a part of a frame readable, as in Linux. */
static inline bool tcp_epollin_ready(const struct sock *sk, int target)
{
	return tcp_inq(sk) > 0 && (tcp_inq(sk) >= target || tcp_inq(sk) >= (int)sk->size);
}

/* Copy to the application. Fewer bytes than asked for are a fault of its memory, when the input says so. */
size_t copy_to_iter(const void *from, size_t size, struct iov_iter *to);
void iov_iter_revert(struct iov_iter *to, size_t size);

#endif
