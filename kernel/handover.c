// SPDX-License-Identifier: GPL-2.0
/*
 * The handover: from two sockets of user space to a relay at work.
 *
 * Everything that can fail comes before the first change of a socket, so a refusal
 * leaves both as they were.
 */
#include <linux/err.h>
#include <linux/slab.h>

#include "internal.h"

static struct stcp_relay *stcp_relay_alloc(const struct stcp_relay_args *args)
{
	struct stcp_relay *relay = kzalloc(sizeof(*relay), GFP_KERNEL_ACCOUNT);
	struct stcp_owner *owner;

	if (!relay)
		return ERR_PTR(-ENOMEM);
	owner = stcp_owner_get();
	if (IS_ERR(owner)) {
		kfree(relay);
		return ERR_CAST(owner);
	}
	relay->owner = owner;
	spin_lock_init(&relay->lock);
	refcount_set(&relay->refs, 1);
	relay->keep = args->flags & STCP_RELAY_KEEP;
	INIT_DELAYED_WORK(&relay->finish, stcp_finish);
	INIT_DELAYED_WORK(&relay->clock, stcp_clock);
	relay->last = jiffies;
	relay->idle_ms = args->idle_ms;
	relay->half_close_ms = args->half_close_ms;
	relay->linger_ms = args->linger_ms;
	return relay;
}

static int stcp_relay_ciphers(struct stcp_relay *relay,
			      const struct stcp_relay_args *args)
{
	int err = stcp_cipher_init(&relay->seal.cipher, args->send.key,
				   args->send.counter);

	return err ?: stcp_cipher_init(&relay->open.cipher, args->receive.key,
				       args->receive.counter);
}

/* Both legs, and the memory of the ciphers charged to the wire. */
static int stcp_relay_claim(struct stcp_relay *relay, struct sock *wire,
			    struct sock *plain)
{
	int err = stcp_leg_claim(wire, &relay->wire);

	if (err)
		return err;
	err = stcp_leg_claim(plain, &relay->plain);
	if (err)
		goto err_wire;
	lock_sock(wire);
	err = stcp_leg_charge(relay->wire, STCP_CIPHERS_SIZE);
	release_sock(wire);
	if (!err)
		return 0;
	stcp_leg_unclaim(relay->plain);
err_wire:
	stcp_leg_unclaim(relay->wire);
	return err;
}

static void stcp_leg_send_at_once(struct stcp_leg *leg)
{
	tcp_sock_set_cork(leg->sk, false);
	tcp_sock_set_nodelay(leg->sk);
}

static void stcp_relay_start(struct stcp_relay *relay)
{
	struct net *net = sock_net(relay->wire->sk);

	stcp_direction_init(&relay->seal, relay, relay->plain, relay->wire,
			    stcp_seal_step, stcp_seal_want);
	stcp_direction_init(&relay->open, relay, relay->wire, relay->plain,
			    stcp_open_step, stcp_open_want);
	stcp_leg_send_at_once(relay->plain);
	stcp_leg_send_at_once(relay->wire);
	stcp_stat_add(net, STCP_STAT_RELAYS, 1);
	stcp_stat_add(net, STCP_STAT_RELAYS_LIVE, 1);
	stcp_leg_hook(relay->plain, relay);
	stcp_leg_hook(relay->wire, relay);
	if (relay->idle_ms)
		queue_delayed_work(stcp_queue, &relay->clock,
				   msecs_to_jiffies(relay->idle_ms));
	/*
	 * Not before both are hooked: a turn may end the relay, and its end
	 * calls what the hooks have saved. What arrived earlier has called nobody.
	 * Nothing may touch the relay after this: another thread can give the leg back.
	 */
	stcp_direction_start(&relay->seal);
	stcp_direction_start(&relay->open);
}

/**
 * stcp_relay_create() - take over a connection
 * @wire: the wire leg's socket, its file held by the caller
 * @args: checked arguments
 * @plain: the plain leg's socket with a reference on its file
 * @wire_bytes: ciphertext read already, from kvmalloc(), or NULL
 * @plain_bytes: text read already, likewise
 *
 * On success the reference and both arrays belong to the relay.
 *
 * Return: 0 or a negative errno, with both sockets as they were.
 */
int stcp_relay_create(struct sock *wire, const struct stcp_relay_args *args,
		      struct socket *plain, u8 *wire_bytes, u8 *plain_bytes)
{
	struct stcp_relay *relay = stcp_relay_alloc(args);
	int err;

	if (IS_ERR(relay))
		return PTR_ERR(relay);
	err = stcp_relay_ciphers(relay, args) ?:
	      stcp_relay_claim(relay, wire, plain->sk);
	if (err) {
		stcp_relay_put(relay);
		return err;
	}
	relay->plain_file = plain->file;
	relay->open.queued = wire_bytes;
	relay->open.queued_end = args->wire_len;
	relay->seal.queued = plain_bytes;
	relay->seal.queued_end = args->plain_len;
	stcp_relay_start(relay);
	return 0;
}
