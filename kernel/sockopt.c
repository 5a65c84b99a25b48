// SPDX-License-Identifier: GPL-2.0
/*
 * The options at SOL_STCP: every argument of user space is checked here, and
 * copies of keys are wiped here, whatever the outcome.
 *
 * Options of other levels go to TCP as ever.
 */
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/uaccess.h>

#include "internal.h"

static const struct proto *stcp_base_of(const struct sock *sk)
{
	return stcp_leg_of(sk)->base;
}

static int stcp_check_relay_args(const struct stcp_relay_args *args)
{
	if (args->interface != STCP_INTERFACE || args->size != sizeof(*args))
		return -EPROTONOSUPPORT;
	if (args->reserved)
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

static int stcp_set_relay(struct sock *sk, sockptr_t optval, unsigned int optlen)
{
	struct stcp_relay_args args;
	int err;

	if (optlen != sizeof(args))
		return -EPROTONOSUPPORT;
	err = copy_from_sockptr(&args, optval, sizeof(args)) ? -EFAULT : 0;
	if (!err)
		err = stcp_check_relay_args(&args);
	if (!err)
		err = stcp_relay_with_bytes(sk, &args);
	memzero_explicit(&args, sizeof(args));
	if (err)
		stcp_stat_add(sock_net(sk), STCP_STAT_RELAYS_REFUSED, 1);
	return err;
}

/*
 * The relay of a wire leg. It stays for as long as the wire's file, which the
 * caller's descriptor holds.
 */
static struct stcp_relay *stcp_relay_of(struct sock *sk)
{
	struct stcp_leg *leg = stcp_leg_of(sk);
	struct stcp_relay *relay;

	read_lock_bh(&sk->sk_callback_lock);
	relay = leg->wire ? leg->relay : NULL;
	read_unlock_bh(&sk->sk_callback_lock);
	return relay;
}

static int stcp_set_abort(struct sock *sk, sockptr_t optval, unsigned int optlen)
{
	struct stcp_relay *relay = stcp_relay_of(sk);
	struct stcp_abort_args args;

	if (!relay)
		return -ENOTCONN;
	if (optlen != sizeof(args))
		return -EPROTONOSUPPORT;
	if (copy_from_sockptr(&args, optval, sizeof(args)))
		return -EFAULT;
	if (args.interface != STCP_INTERFACE)
		return -EPROTONOSUPPORT;
	if (args.text_len > STCP_MAX_TEXT)
		return -EINVAL;
	return stcp_relay_reset(relay, STCP_END_ABORTED, 0, args.code, args.text,
				args.text_len) ? 0 : -EALREADY;
}

int stcp_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval,
		    unsigned int optlen)
{
	if (level != SOL_STCP)
		return stcp_base_of(sk)->setsockopt(sk, level, optname, optval,
						    optlen);
	switch (optname) {
	case STCP_RELAY:
		return stcp_set_relay(sk, optval, optlen);
	case STCP_ABORT:
		return stcp_set_abort(sk, optval, optlen);
	default:
		return -ENOPROTOOPT;
	}
}

static int stcp_get_status(struct sock *sk, char __user *optval,
			   int __user *optlen)
{
	struct stcp_relay *relay = stcp_relay_of(sk);
	struct stcp_status status = { .interface = STCP_INTERFACE };
	int len;

	if (get_user(len, optlen))
		return -EFAULT;
	if (len != sizeof(status))
		return -EPROTONOSUPPORT;
	/* This order is how user space tests for our interface. */
	if (!relay)
		return -ENOTCONN;
	stcp_relay_status(relay, &status);
	return copy_to_user(optval, &status, sizeof(status)) ? -EFAULT : 0;
}

int stcp_getsockopt(struct sock *sk, int level, int optname,
		    char __user *optval, int __user *optlen)
{
	if (level != SOL_STCP)
		return stcp_base_of(sk)->getsockopt(sk, level, optname, optval,
						    optlen);
	if (optname != STCP_STATUS)
		return -ENOPROTOOPT;
	return stcp_get_status(sk, optval, optlen);
}
