// SPDX-License-Identifier: GPL-2.0
/*
 * Keeping a wire leg for the next connection (PROTOCOL.md section 7).
 *
 * With STCP_RELAY_KEEP a relay whose connection is over in order leaves the wire leg
 * open. Not a byte of the next connection is read here: the peer sends it when it has
 * our FIN, so what arrives before our FIN has left belongs to this connection. The
 * end of our FIN is taken by TCP under the socket lock, and that is noted under the
 * same lock (stcp_leg_send()). A receive has the lock too, so it knows of our FIN
 * when it finds an answer to it, and wants nothing (stcp_open_want()). A frame that
 * was begun earlier is still received to its end: only RESET may stand there.
 *
 * The wire leg is not bound to the pace of the application. Its last bytes, one frame
 * at most, go beyond the send buffer of the plain leg, if only FIN follows them.
 *
 * STCP_GIVE_BACK makes the leg what it was before the handover. It is a system call
 * of the owner, so it may wait for the socket lock. It frees the relay. Therefore
 * every other system call that uses the relay holds a reference (stcp_relay_get()).
 */
#include "internal.h"

/* Has all of our FIN left? True for good, once it is. */
static bool stcp_fin_left(const struct stcp_direction *seal)
{
	/* Pairs with stcp_seal_fin(): out_end. */
	return smp_load_acquire(&seal->fin) &&
	       READ_ONCE(seal->out) == READ_ONCE(seal->out_end);
}

/* Have both FINs passed a wire leg that is kept, and nothing else was received? */
bool stcp_wire_over(const struct stcp_direction *open)
{
	return open->relay->keep && open->fin && !open->in_end && !open->queued &&
	       stcp_fin_left(&open->relay->seal);
}

/*
 * May text for the plain leg go beyond its send buffer, when the peer's FIN comes?
 * Then arriving bytes have to kick the direction, although it waits for room.
 */
bool stcp_may_go_beyond(const struct stcp_direction *d)
{
	const struct stcp_relay *relay = d->relay;

	return relay->keep && d == &relay->open && READ_ONCE(relay->seal.fin_passed);
}

/* Is the next frame of the wire, which is not received yet, FIN by its header? */
bool stcp_fin_waits(const struct stcp_direction *open)
{
	u8 header[STCP_HEADER_LEN];
	bool there;

	if (open->queued) {
		if (open->queued_end - open->queued_at < sizeof(header))
			return false;
		memcpy(header, open->queued + open->queued_at, sizeof(header));
	} else {
		if (!stcp_leg_trylock(open->from))
			return false;
		there = stcp_peek(open->from->sk, header, sizeof(header));
		stcp_unlock(open->from->sk);
		if (!there)
			return false;
	}
	return header[0] == STCP_FRAME_FIN && !header[1] &&
	       get_unaligned_be16(header + 2) == STCP_TAG_LEN;
}

static int stcp_relay_may_give_back(struct stcp_relay *relay)
{
	/* Pairs with stcp_finish(). */
	if (!smp_load_acquire(&relay->ended))
		return -EBUSY;
	if (!relay->keep || relay->end != STCP_END_FINISHED)
		return -ESHUTDOWN;
	return relay->given_back ? -EALREADY : 0;
}

/*
 * STCP_GIVE_BACK. Return: 0; -ENOTCONN without a relay, -EBUSY before its end,
 * -ESHUTDOWN for a leg that is not kept, -EALREADY while another thread does it.
 */
int stcp_relay_give_back(struct sock *sk)
{
	struct stcp_relay *relay = stcp_relay_get(sk);
	int err;

	if (!relay)
		return -ENOTCONN;
	spin_lock(&relay->lock);
	err = stcp_relay_may_give_back(relay);
	if (!err)
		relay->given_back = true;
	spin_unlock(&relay->lock);
	if (!err) {
		/* It may still be waking those who poll. */
		flush_delayed_work(&relay->finish);
		stcp_relay_leave_wire(relay, true);
		stcp_stat_add(sock_net(sk), STCP_STAT_LEGS_GIVEN_BACK, 1);
	}
	stcp_relay_put(relay);
	return err;
}
