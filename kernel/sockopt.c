// SPDX-License-Identifier: GPL-2.0
/*
 * The options at SOL_STCP: every argument of user space is checked here, and
 * copies of keys are wiped here, whatever the outcome.
 *
 * Options of other levels go to TCP as ever until the leg relays. From then on only
 * those in the lists below do: an option that moves, keeps or stamps bytes would
 * take them from the relay, and the peer would be blamed.
 */
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/uaccess.h>

#include "internal.h"

static int stcp_check_relay_args(const struct stcp_relay_args *args,
				 unsigned int optlen)
{
	if (args->interface != STCP_INTERFACE || args->size != optlen)
		return -EPROTONOSUPPORT;
	if (args->flags & ~STCP_RELAY_KEEP)
		return -EINVAL;
	if (args->wire_len > STCP_MAX_QUEUED || args->plain_len > STCP_MAX_QUEUED)
		return -EMSGSIZE;
	if (args->send.counter == STCP_REKEY_NONCE ||
	    args->receive.counter == STCP_REKEY_NONCE)
		return -EKEYEXPIRED;
	return 0;
}

/* Bytes read already, as the relay will keep them. NULL for none. */
static u8 *stcp_copy_queued(u64 from, u32 len)
{
	u8 *bytes;

	if (!len)
		return NULL;
	/* Anybody may ask for this much: no word of it in the kernel's log. */
	bytes = kvmalloc(len, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!bytes)
		return ERR_PTR(-ENOMEM);
	if (copy_from_user(bytes, u64_to_user_ptr(from), len)) {
		kvfree(bytes);
		return ERR_PTR(-EFAULT);
	}
	return bytes;
}

static int stcp_relay_with_bytes(struct sock *sk, const struct stcp_relay_args *args)
{
	struct socket *plain;
	u8 *wire_bytes, *plain_bytes;
	int err;

	wire_bytes = stcp_copy_queued(args->wire_bytes, args->wire_len);
	if (IS_ERR(wire_bytes))
		return PTR_ERR(wire_bytes);
	plain_bytes = stcp_copy_queued(args->plain_bytes, args->plain_len);
	if (IS_ERR(plain_bytes)) {
		err = PTR_ERR(plain_bytes);
		goto err_wire;
	}
	plain = sockfd_lookup(args->plain_fd, &err);
	if (!plain)
		goto err_plain;
	err = plain->sk == sk ? -EINVAL :
	      stcp_relay_create(sk, args, plain, wire_bytes, plain_bytes);
	if (!err)
		return 0;
	sockfd_put(plain);
err_plain:
	kvfree(plain_bytes);
err_wire:
	kvfree(wire_bytes);
	return err;
}

/*
 * Copy a struct whose version may be longer than ours, as copy_struct_from_user()
 * does. Return: 0; -EPROTONOSUPPORT for one that is too short, -E2BIG for one that
 * uses fields that we do not know, -EFAULT.
 */
static int stcp_copy_struct(void *to, size_t size, sockptr_t from, unsigned int len)
{
	u8 rest[64];
	size_t n;

	if (len < size)
		return -EPROTONOSUPPORT;
	if (len > PAGE_SIZE)
		return -E2BIG;
	if (copy_from_sockptr(to, from, size))
		return -EFAULT;
	for (; size < len; size += n) {
		n = min_t(size_t, len - size, sizeof(rest));
		if (copy_from_sockptr_offset(rest, from, size, n))
			return -EFAULT;
		if (memchr_inv(rest, 0, n))
			return -E2BIG;
	}
	return 0;
}

static int stcp_set_relay(struct sock *sk, sockptr_t optval, unsigned int optlen)
{
	struct stcp_relay_args args;
	int err;

	err = stcp_copy_struct(&args, sizeof(args), optval, optlen);
	if (!err)
		err = stcp_check_relay_args(&args, optlen);
	if (!err)
		err = stcp_relay_with_bytes(sk, &args);
	memzero_explicit(&args, sizeof(args));
	if (err)
		stcp_stat_add(sock_net(sk), STCP_STAT_RELAYS_REFUSED, 1);
	return err;
}

static int stcp_check_abort_args(const struct stcp_abort_args *args)
{
	if (args->interface != STCP_INTERFACE)
		return -EPROTONOSUPPORT;
	if (!args->code || args->code > STCP_CODE_INTERNAL_ERROR ||
	    args->text_len > STCP_MAX_TEXT)
		return -EINVAL;
	return 0;
}

static int stcp_set_abort(struct sock *sk, sockptr_t optval, unsigned int optlen)
{
	struct stcp_relay *relay = stcp_relay_get(sk);
	struct stcp_abort_args args;
	int err;

	if (!relay)
		return -ENOTCONN;
	err = stcp_copy_struct(&args, sizeof(args), optval, optlen) ?:
	      stcp_check_abort_args(&args);
	if (!err && !stcp_relay_reset(relay, STCP_END_ABORTED, 0, args.code, args.text,
				      args.text_len))
		err = -EALREADY;
	stcp_relay_put(relay);
	return err;
}

/* -- options of other levels ------------------------------------------------ */

static bool stcp_relaying(const struct sock *sk)
{
	const struct stcp_leg *leg = stcp_leg_of(sk);

	return leg && READ_ONCE(leg->role) == STCP_ROLE_RELAYING;
}

static bool stcp_may_set(int level, int optname)
{
	switch (level) {
	case SOL_SOCKET:
		return optname == SO_KEEPALIVE || optname == SO_PRIORITY ||
		       optname == SO_MARK;
	case SOL_TCP:
		return optname == TCP_KEEPIDLE || optname == TCP_KEEPINTVL ||
		       optname == TCP_KEEPCNT || optname == TCP_USER_TIMEOUT;
	case SOL_IP:
		return optname == IP_TOS;
	case SOL_IPV6:
		return optname == IPV6_TCLASS;
	default:
		return false;
	}
}

static bool stcp_may_get(int level, int optname)
{
	switch (level) {
	case SOL_TCP:
		return optname != TCP_ZEROCOPY_RECEIVE && optname != TCP_REPAIR &&
		       optname != TCP_REPAIR_QUEUE && optname != TCP_REPAIR_OPTIONS &&
		       optname != TCP_REPAIR_WINDOW;
	case SOL_SOCKET:
	case SOL_IP:
	case SOL_IPV6:
		return true;
	default:
		return false;
	}
}

static int stcp_set_other(struct sock *sk, int level, int optname, sockptr_t optval,
			  unsigned int optlen)
{
	const struct stcp_leg *leg = stcp_leg_of(sk);

	if (!leg)
		return -ENOTCONN;
	if (stcp_relaying(sk) && !stcp_may_set(level, optname))
		return -EBUSY;
	if (level == SOL_SOCKET)
		return sock_setsockopt(sk->sk_socket, level, optname, optval, optlen);
	return leg->base->setsockopt(sk, level, optname, optval, optlen);
}

int stcp_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval,
		    unsigned int optlen)
{
	if (level != SOL_STCP)
		return stcp_set_other(sk, level, optname, optval, optlen);
	switch (optname) {
	case STCP_RELAY:
		return stcp_set_relay(sk, optval, optlen);
	case STCP_ABORT:
		return stcp_set_abort(sk, optval, optlen);
	case STCP_GIVE_BACK:
		return optlen ? -EINVAL : stcp_relay_give_back(sk);
	default:
		return -ENOPROTOOPT;
	}
}

/* A caller that knows a shorter or a longer struct gets as much as both know. */
static int stcp_get_status(struct sock *sk, char __user *optval,
			   int __user *optlen)
{
	struct stcp_status status = { .interface = STCP_INTERFACE };
	struct stcp_relay *relay;
	int len;

	if (get_user(len, optlen))
		return -EFAULT;
	if (len < (int)offsetof(struct stcp_status, bytes_to_wire))
		return -EPROTONOSUPPORT;
	/* This order is how user space tests for our interface. */
	relay = stcp_relay_get(sk);
	if (!relay)
		return -ENOTCONN;
	stcp_relay_status(relay, &status);
	stcp_relay_put(relay);
	len = min_t(int, len, sizeof(status));
	if (put_user(len, optlen))
		return -EFAULT;
	return copy_to_user(optval, &status, len) ? -EFAULT : 0;
}

int stcp_getsockopt(struct sock *sk, int level, int optname,
		    char __user *optval, int __user *optlen)
{
	const struct stcp_leg *leg = stcp_leg_of(sk);

	if (!leg)
		return -ENOTCONN;
	if (level == SOL_STCP)
		return optname == STCP_STATUS ?
		       stcp_get_status(sk, optval, optlen) : -ENOPROTOOPT;
	if (stcp_relaying(sk) && !stcp_may_get(level, optname))
		return -EBUSY;
	return leg->base->getsockopt(sk, level, optname, optval, optlen);
}
