// SPDX-License-Identifier: GPL-2.0
/*
 * A relay: the life of one connection in the kernel.
 *
 * Modes. RUN until something ends the connection; RESET while the peer is told
 * why and the wire lingers; BREAK when both legs are given up. A mode only ever
 * changes to a later one, under relay->lock, and the cause (end, error, code,
 * text) is written together with the first change and never again. A direction
 * acts on the mode it reads at the start of a step.
 *
 * The end. A direction that has nothing left to do in the present mode settles;
 * a later mode unsettles both. When both are settled the "finish" work item
 * stops everything, gives up keys, buffers and the plain leg, and wakes whoever
 * polls the wire. If the owner closes the wire first, close() does the same on
 * its own, with an RST to both legs.
 *
 * Stopping. relay->stop makes turns and work items end at once. They are
 * cancelled, then the leg is unhooked, then they are cancelled once more, for a
 * callback may have kicked one in between. After that nobody looks at the relay.
 * None of this is done under a socket lock, which turns try to take.
 *
 * Work items of the module serve all users and so never wait for a socket lock.
 * Where one is taken, "finish" comes again later, the clock looks a second later,
 * and a direction is kicked by stcp_release_cb(). The owner's own system calls wait
 * for it. close() does not wait for that of the plain leg, which another thread can
 * hold for ever: the last reference of a file may end in a worker that closes files
 * for everybody. The wire's lock has no such holder left then.
 *
 * The wire's close() or STCP_GIVE_BACK (keep.c) lets go of the relay, so the wire's
 * socket and file outlive it, but for the reference of a system call that only
 * looks. The plain leg is pinned by its file until the relay finishes.
 */
#include <linux/file.h>
#include <linux/slab.h>

#include "internal.h"

/* Time until another try to lock a leg whose relay finishes. */
#define STCP_FINISH_RETRY	(HZ / 50 + 1)

void stcp_relay_kick(struct stcp_relay *relay)
{
	stcp_direction_kick(&relay->seal);
	stcp_direction_kick(&relay->open);
}

void stcp_relay_progress(struct stcp_relay *relay)
{
	WRITE_ONCE(relay->last, jiffies);
}

/* -- changes of mode ------------------------------------------------------- */

static void stcp_relay_cause(struct stcp_relay *relay, enum stcp_end end,
			     int error, u16 code, const void *text, u16 text_len)
{
	lockdep_assert_held(&relay->lock);
	if (relay->end != STCP_END_NONE)
		return;
	relay->error = error > 0 ? -error : error;
	relay->code = code;
	if (text_len)
		memcpy(relay->text, text, text_len);
	relay->text_len = text_len;
	WRITE_ONCE(relay->end, end);
}

static bool stcp_relay_enter(struct stcp_relay *relay, enum stcp_mode mode,
			     enum stcp_end end, int error, u16 code,
			     const void *text, u16 text_len)
{
	bool entered;

	spin_lock(&relay->lock);
	entered = mode > relay->mode && !relay->finishing;
	if (entered) {
		stcp_relay_cause(relay, end, error, code, text, text_len);
		relay->seal.settled = false;
		relay->open.settled = false;
		relay->deadline = jiffies + msecs_to_jiffies(relay->linger_ms);
		/* Whoever sees the mode sees the cause. */
		smp_store_release(&relay->mode, mode);
	}
	spin_unlock(&relay->lock);
	if (!entered)
		return false;
	stcp_relay_kick(relay);
	if (mode == STCP_MODE_RESET)
		mod_delayed_work(stcp_queue, &relay->clock,
				 msecs_to_jiffies(relay->linger_ms));
	return true;
}

/* Tell the peer, give up the plain leg. Returns whether this was the first cause. */
bool stcp_relay_reset(struct stcp_relay *relay, enum stcp_end end, int error,
		      u16 code, const void *text, u16 text_len)
{
	return stcp_relay_enter(relay, STCP_MODE_RESET, end, error, code, text,
				text_len);
}

/* Give up both legs. */
bool stcp_relay_break(struct stcp_relay *relay, enum stcp_end end, int error)
{
	return stcp_relay_enter(relay, STCP_MODE_BREAK, end, error, 0, NULL, 0);
}

/* The peer said RESET. */
bool stcp_relay_peer_reset(struct stcp_relay *relay, u16 code, const void *text,
			   u16 text_len)
{
	return stcp_relay_enter(relay, STCP_MODE_BREAK, STCP_END_PEER_RESET, 0,
				code, text, text_len);
}

/* -- the end --------------------------------------------------------------- */

/* A direction found nothing left to do in the mode that it saw. */
void stcp_relay_settle(struct stcp_direction *d)
{
	struct stcp_relay *relay = d->relay;
	bool again;

	spin_lock(&relay->lock);
	again = d->mode != relay->mode;
	if (!again) {
		d->settled = true;
		if (relay->seal.settled && relay->open.settled &&
		    !relay->finishing) {
			stcp_relay_cause(relay, STCP_END_FINISHED, 0, 0, NULL, 0);
			/*
			 * Both under the lock: who sees "finishing" can wait
			 * for the work item.
			 */
			WRITE_ONCE(relay->finishing, true);
			queue_delayed_work(stcp_queue, &relay->finish, 0);
		}
	}
	spin_unlock(&relay->lock);
	if (again)
		stcp_direction_kick(d);
}

static void stcp_relay_cancel(struct stcp_relay *relay)
{
	cancel_delayed_work_sync(&relay->clock);
	stcp_direction_cancel(&relay->seal);
	stcp_direction_cancel(&relay->open);
}

static void stcp_relay_let_plain_go(struct stcp_relay *relay)
{
	fput(relay->plain_file);
	relay->plain_file = NULL;
	relay->plain = NULL;
}

/* The owner has closed the wire while somebody held the plain leg's lock. */
static void stcp_relay_abandoned(struct stcp_relay *relay)
{
	if (!stcp_leg_abort(relay->plain, ECONNRESET)) {
		queue_delayed_work(stcp_queue, &relay->finish, STCP_FINISH_RETRY);
		return;
	}
	stcp_relay_let_plain_go(relay);
	stcp_relay_put(relay);
}

/* Stop all work and give up everything but the wire leg itself. */
static void stcp_relay_release(struct stcp_relay *relay, bool abort)
{
	struct net *net = sock_net(relay->wire->sk);

	WRITE_ONCE(relay->stop, true);
	stcp_relay_cancel(relay);
	if (abort) {
		relay->abandoned = !stcp_leg_abort(relay->plain, ECONNRESET);
		if (!(relay->mode == STCP_MODE_RESET && relay->seal.last_frame &&
		      relay->seal.out == relay->seal.out_end))
			tcp_abort(relay->wire->sk, ECONNABORTED);
	}
	stcp_leg_unhook(relay->plain);
	stcp_relay_cancel(relay);
	stcp_direction_free(&relay->seal);
	stcp_direction_free(&relay->open);
	stcp_stat_add(net, STCP_STAT_RELAYS_LIVE, -1);
	stcp_stat_add(net, STCP_STAT_END + relay->end, 1);
	if (!relay->abandoned) {
		stcp_relay_let_plain_go(relay);
		return;
	}
	refcount_inc(&relay->refs);
	queue_delayed_work(stcp_queue, &relay->finish, STCP_FINISH_RETRY);
}

void stcp_finish(struct work_struct *work)
{
	struct stcp_relay *relay = container_of(to_delayed_work(work),
						struct stcp_relay, finish);
	struct stcp_leg *wire = relay->wire;

	if (relay->abandoned) {
		stcp_relay_abandoned(relay);
		return;
	}
	if (relay->plain)
		stcp_relay_release(relay, false);
	if (relay->end == STCP_END_FINISHED && !relay->keep && !stcp_leg_shutdown(wire)) {
		queue_delayed_work(stcp_queue, &relay->finish, STCP_FINISH_RETRY);
		return;
	}
	/* Whoever polls the end finds everything given up. */
	smp_store_release(&relay->ended, true);
	wire->state_change(wire->sk);
}

/*
 * The relay of a wire leg, with a reference, or NULL. The caller's descriptor holds
 * the wire's file.
 */
struct stcp_relay *stcp_relay_get(struct sock *sk)
{
	struct stcp_leg *leg;
	struct stcp_relay *relay;

	read_lock_bh(&sk->sk_callback_lock);
	leg = stcp_leg_of(sk);
	relay = leg && leg->wire ? leg->relay : NULL;
	if (relay)
		refcount_inc(&relay->refs);
	read_unlock_bh(&sk->sk_callback_lock);
	return relay;
}

static void stcp_relay_free(struct stcp_relay *relay)
{
	stcp_cipher_destroy(&relay->open.cipher);
	stcp_cipher_destroy(&relay->seal.cipher);
	stcp_owner_put(relay->owner);
	kfree_sensitive(relay);
}

void stcp_relay_put(struct stcp_relay *relay)
{
	if (refcount_dec_and_test(&relay->refs))
		stcp_relay_free(relay);
}

/* Part the relay from its wire leg, which nothing of it uses any more. */
void stcp_relay_leave_wire(struct stcp_relay *relay, bool give_back)
{
	struct stcp_leg *wire = relay->wire;

	stcp_leg_unhook(wire);
	stcp_relay_cancel(relay);
	lock_sock(wire->sk);
	stcp_leg_uncharge(wire, STCP_CIPHERS_SIZE);
	if (give_back)
		stcp_leg_give_back(wire);
	release_sock(wire->sk);
	stcp_relay_put(relay);
}

/* The owner closes the wire. Ends the relay if nothing else did. */
void stcp_relay_destroy(struct stcp_relay *relay)
{
	bool finishing;

	spin_lock(&relay->lock);
	finishing = relay->finishing;
	WRITE_ONCE(relay->finishing, true);
	spin_unlock(&relay->lock);

	if (!finishing) {
		stcp_relay_release(relay, true);
	} else {
		/* "finish" may ask for another try; a flush would leave that behind. */
		cancel_delayed_work_sync(&relay->finish);
		if (relay->plain)
			stcp_relay_release(relay, false);
	}
	stcp_relay_leave_wire(relay, false);
}

/* -- the status ------------------------------------------------------------ */

static u32 stcp_buffered(const struct stcp_direction *d)
{
	return READ_ONCE(d->buffer.count) * PAGE_SIZE +
	       READ_ONCE(d->queued_end);
}

/* STCP_STATUS: a look without stopping anything. */
void stcp_relay_status(struct stcp_relay *relay, struct stcp_status *status)
{
	status->bytes_to_wire = READ_ONCE(relay->seal.bytes);
	status->bytes_to_plain = READ_ONCE(relay->open.bytes);
	status->send_counter = READ_ONCE(relay->seal.cipher.n);
	status->receive_counter = READ_ONCE(relay->open.cipher.n);
	status->buffered = stcp_buffered(&relay->seal) +
			   stcp_buffered(&relay->open);
	spin_lock(&relay->lock);
	status->ended = relay->ended;
	status->kept = relay->ended && relay->keep && relay->end == STCP_END_FINISHED;
	status->end = relay->end;
	status->error = relay->error;
	status->code = relay->code;
	status->text_len = relay->text_len;
	memcpy(status->text, relay->text, relay->text_len);
	spin_unlock(&relay->lock);
}
