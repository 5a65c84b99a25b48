// SPDX-License-Identifier: GPL-2.0
/*
 * Options of an outer socket.
 *
 * SOL_STCP is ours. Options of TCP, IP and IPv6 are those of the inner socket: what is
 * in the lists below goes there, from a copy in the kernel, for TCP may read an
 * argument under its lock. What would take, keep or stamp bytes of the inner socket is
 * not in the lists: they are frames, and nobody's but ours.
 *
 * SOL_SOCKET is answered by the socket layer for the outer socket; before Linux 6.4 it
 * does not even ask. What concerns TCP is copied to the inner socket by
 * stcp_sock_mirror(), before the call for which it matters, and SO_KEEPALIVE at once.
 * The rest (timeouts, SO_RCVLOWAT, SO_LINGER) is the outer socket's own.
 */
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "sock_internal.h"

/* The longest argument that is passed on. */
#define STCP_OPTION_LEN		1024

/* -- SOL_SOCKET ---------------------------------------------------------------- */

static struct stcp_mirror stcp_mirror_of(const struct sock *sk)
{
	return (struct stcp_mirror) {
		.priority = sk->sk_priority,
		.mark = sk->sk_mark,
		.sndbuf = sk->sk_userlocks & SOCK_SNDBUF_LOCK ? sk->sk_sndbuf : 0,
		.rcvbuf = sk->sk_userlocks & SOCK_RCVBUF_LOCK ? sk->sk_rcvbuf : 0,
		.device = sk->sk_bound_dev_if,
		.pacing = sk->sk_max_pacing_rate,
		.reuse = sk->sk_reuse,
		.reuseport = sk->sk_reuseport,
		.dontroute = sock_flag(sk, SOCK_LOCALROUTE),
		.keepalive = sock_flag(sk, SOCK_KEEPOPEN),
	};
}

/* At first: nothing of the outer socket differs from the inner one. */
void stcp_sock_mirror_init(struct stcp_sock *s)
{
	s->mirror = stcp_mirror_of(stcp_outer(s));
}

static void stcp_mirror_buffers(struct sock *isk, const struct stcp_mirror *to,
				const struct stcp_mirror *was)
{
	if (to->sndbuf && to->sndbuf != was->sndbuf) {
		isk->sk_userlocks |= SOCK_SNDBUF_LOCK;
		WRITE_ONCE(isk->sk_sndbuf, to->sndbuf);
		isk->sk_write_space(isk);
	}
	if (to->rcvbuf && to->rcvbuf != was->rcvbuf) {
		/* A frame has to fit. */
		isk->sk_userlocks |= SOCK_RCVBUF_LOCK;
		WRITE_ONCE(isk->sk_rcvbuf, max(to->rcvbuf, STCP_MIN_RCVBUF));
	}
}

/* Call with the inner socket locked. */
static void stcp_inner_keepalive(struct sock *isk, int on)
{
	isk->sk_prot->keepalive(isk, on);
	sock_valbool_flag(isk, SOCK_KEEPOPEN, on);
}

static void stcp_mirror_apply(struct sock *isk, const struct stcp_mirror *to,
			      const struct stcp_mirror *was)
{
	lock_sock(isk);
	if (to->priority != was->priority)
		isk->sk_priority = to->priority;
	if (to->mark != was->mark || to->device != was->device ||
	    to->dontroute != was->dontroute) {
		isk->sk_mark = to->mark;
		isk->sk_bound_dev_if = to->device;
		sock_valbool_flag(isk, SOCK_LOCALROUTE, to->dontroute);
		sk_dst_reset(isk);
	}
	if (to->pacing != was->pacing) {
		/* As SO_MAX_PACING_RATE does: without fq TCP paces itself. */
		if (to->pacing != ~0UL)
			cmpxchg(&isk->sk_pacing_status, SK_PACING_NONE, SK_PACING_NEEDED);
		isk->sk_max_pacing_rate = to->pacing;
		isk->sk_pacing_rate = min(isk->sk_pacing_rate, to->pacing);
	}
	isk->sk_reuse = to->reuse;
	isk->sk_reuseport = to->reuseport;
	stcp_mirror_buffers(isk, to, was);
	if (to->keepalive != was->keepalive)
		stcp_inner_keepalive(isk, to->keepalive);
	release_sock(isk);
}

/* Call with the outer socket locked. */
void stcp_sock_mirror(struct stcp_sock *s)
{
	struct stcp_mirror to = stcp_mirror_of(stcp_outer(s));

	if (s->session && !s->session->charged)
		stcp_inner_charge(s);
	if (likely(!memcmp(&to, &s->mirror, sizeof(to))))
		return;
	stcp_mirror_apply(s->inner->sk, &to, &s->mirror);
	s->mirror = to;
}

/*
 * SO_KEEPALIVE, with the outer socket locked. It is for an application that only waits
 * from then on, so it takes effect at once.
 */
void stcp_sock_keepalive(struct sock *sk, int on)
{
	struct stcp_sock *s = stcp_sk(sk);
	struct sock *isk = s->inner->sk;

	lock_sock(isk);
	stcp_inner_keepalive(isk, on);
	release_sock(isk);
	s->mirror.keepalive = on;
}

/* -- SOL_STCP ------------------------------------------------------------------ */

static int stcp_set_name(struct sock *sk, char *name, sockptr_t optval,
			 unsigned int optlen)
{
	char value[STCP_MAX_NAME + 1] = "";
	int err = 0;

	if (optlen > STCP_MAX_NAME)
		return -EINVAL;
	if (copy_from_sockptr(value, optval, optlen))
		return -EFAULT;
	lock_sock(sk);
	if (inet_sk_state_load(sk) == TCP_CLOSE)
		strscpy(name, value, sizeof(value));
	else
		err = -EISCONN;
	release_sock(sk);
	return err;
}

/* Give user space as much of @value as it has room for. */
static int stcp_get_bytes(const void *value, int size, char __user *optval,
			  int __user *optlen)
{
	int len;

	if (get_user(len, optlen))
		return -EFAULT;
	if (len < 0)
		return -EINVAL;
	len = min(len, size);
	if (put_user(len, optlen))
		return -EFAULT;
	return copy_to_user(optval, value, len) ? -EFAULT : 0;
}

static void stcp_sock_status(const struct stcp_session *e, struct stcp_status *status)
{
	status->ended = e->fatal || (e->eof && e->fin);
	status->end = e->end ?: status->ended ? STCP_END_FINISHED : STCP_END_NONE;
	status->error = e->error;
	status->bytes_to_wire = e->sent;
	status->bytes_to_plain = e->received;
	status->send_counter = e->send.n;
	status->receive_counter = e->receive.n;
	status->buffered = stcp_session_buffered(e);
	status->code = e->code;
	status->text_len = e->reason_len;
	memcpy(status->text, e->reason, e->reason_len);
}

static int stcp_get_own(struct sock *sk, int optname, char __user *optval,
			int __user *optlen)
{
	struct stcp_status status = { .interface = STCP_INTERFACE };
	struct stcp_sock *s = stcp_sk(sk);
	char name[STCP_MAX_NAME + 1];
	const struct stcp_session *e;

	lock_sock(sk);
	e = inet_sk_state_load(sk) == TCP_ESTABLISHED ? s->session : NULL;
	if (e)
		stcp_sock_status(e, &status);
	strscpy(name, optname == STCP_SERVICE ? s->service : s->identity, sizeof(name));
	release_sock(sk);
	if (optname == STCP_SERVICE || optname == STCP_IDENTITY)
		return stcp_get_bytes(name, strlen(name), optval, optlen);
	if (!e)
		return -ENOTCONN;
	/* The session stays until close(). */
	switch (optname) {
	case STCP_STATUS:
		return stcp_get_bytes(&status, sizeof(status), optval, optlen);
	case STCP_PEER:
		return stcp_get_bytes(e->peer, e->peer_len, optval, optlen);
	case STCP_CHANNEL_ID:
		return stcp_get_bytes(e->channel_id, sizeof(e->channel_id), optval,
				      optlen);
	default:
		return -ENOPROTOOPT;
	}
}

/* -- TCP, IP, IPv6 ------------------------------------------------------------- */

static bool stcp_tcp_option(int optname)
{
	switch (optname) {
	case TCP_NODELAY: case TCP_MAXSEG: case TCP_CORK: case TCP_KEEPIDLE:
	case TCP_KEEPINTVL: case TCP_KEEPCNT: case TCP_SYNCNT: case TCP_LINGER2:
	case TCP_DEFER_ACCEPT: case TCP_WINDOW_CLAMP: case TCP_INFO: case TCP_QUICKACK:
	case TCP_CONGESTION: case TCP_THIN_LINEAR_TIMEOUTS: case TCP_USER_TIMEOUT:
	case TCP_NOTSENT_LOWAT: case TCP_CC_INFO: case TCP_TX_DELAY:
		return true;
	default:
		return false;
	}
}

static bool stcp_ip_option(int optname)
{
	switch (optname) {
	case IP_TOS: case IP_TTL: case IP_MTU_DISCOVER: case IP_MTU: case IP_FREEBIND:
	case IP_TRANSPARENT: case IP_BIND_ADDRESS_NO_PORT: case IP_MINTTL:
		return true;
	default:
		return false;
	}
}

static bool stcp_ipv6_option(int optname)
{
	switch (optname) {
	case IPV6_V6ONLY: case IPV6_TCLASS: case IPV6_UNICAST_HOPS: case IPV6_MTU:
	case IPV6_MTU_DISCOVER: case IPV6_FREEBIND: case IPV6_TRANSPARENT:
	case IPV6_AUTOFLOWLABEL: case IPV6_ADDR_PREFERENCES: case IPV6_MINHOPCOUNT:
	case IPV6_DONTFRAG:
		return true;
	default:
		return false;
	}
}

static bool stcp_passed_on(const struct sock *sk, int level, int optname)
{
	return (level == SOL_TCP && stcp_tcp_option(optname)) ||
	       (level == SOL_IP && stcp_ip_option(optname)) ||
	       (level == SOL_IPV6 && sk->sk_family == AF_INET6 &&
		stcp_ipv6_option(optname));
}

static int stcp_pass_on(struct sock *sk, int level, int optname, sockptr_t optval,
			unsigned int optlen)
{
	struct sock *isk = stcp_sk(sk)->inner->sk;
	void *copy;
	int err;

	if (optlen > STCP_OPTION_LEN)
		return -EINVAL;
	copy = memdup_sockptr(optval, optlen);
	if (IS_ERR(copy))
		return PTR_ERR(copy);
	err = isk->sk_prot->setsockopt(isk, level, optname, KERNEL_SOCKPTR(copy),
				       optlen);
	kfree(copy);
	return err;
}

int stcp_sock_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval,
			 unsigned int optlen)
{
	struct stcp_sock *s = stcp_sk(sk);

	if (level == SOL_STCP && optname == STCP_SERVICE)
		return stcp_set_name(sk, s->service, optval, optlen);
	if (level == SOL_STCP && optname == STCP_IDENTITY)
		return stcp_set_name(sk, s->identity, optval, optlen);
	if (!stcp_passed_on(sk, level, optname))
		return -ENOPROTOOPT;
	return stcp_pass_on(sk, level, optname, optval, optlen);
}

int stcp_sock_getsockopt(struct sock *sk, int level, int optname,
			 char __user *optval, int __user *optlen)
{
	struct sock *isk = stcp_sk(sk)->inner->sk;

	if (level == SOL_STCP)
		return stcp_get_own(sk, optname, optval, optlen);
	if (!stcp_passed_on(sk, level, optname))
		return -ENOPROTOOPT;
	return isk->sk_prot->getsockopt(isk, level, optname, optval, optlen);
}
