// SPDX-License-Identifier: GPL-2.0
/*
 * Looks: what became of the bytes that a leg was given to send.
 */
#include "internal.h"

/* Window probes without an answer after which the other end is dead. */
#define STCP_DEAD_AFTER_PROBES	4

void stcp_leg_ease(struct stcp_leg *leg, bool ease)
{
	struct inet_connection_sock *icsk = inet_csk(leg->sk);

	if (leg->eased == ease)
		return;
	if (ease)
		leg->user_timeout = icsk->icsk_user_timeout;
	WRITE_ONCE(icsk->icsk_user_timeout, ease ? 0 : leg->user_timeout);
	leg->eased = ease;
}

/* Has the other end been silent for as long as TCP_USER_TIMEOUT allows? */
static bool stcp_leg_silent(const struct stcp_leg *leg)
{
	u32 silence = tcp_jiffies32 - tcp_sk(leg->sk)->rcv_tstamp;

	return leg->user_timeout && silence >= msecs_to_jiffies(leg->user_timeout) &&
	       inet_csk(leg->sk)->icsk_probes_out >= STCP_DEAD_AFTER_PROBES;
}

/*
 * Something was sent a while ago: see what became of it.
 *
 * TCP_USER_TIMEOUT would end a leg even when its other end lives and only does
 * not read: a closed window that answers every probe counts as unacknowledged.
 * So where bytes wait, none is under way and nothing moves, the option is
 * lifted. Then the leg is dead when probes stay without an answer for as long as
 * the option says. Without the option TCP's own number of probes decides.
 */
enum stcp_look stcp_leg_look(struct stcp_leg *leg)
{
	const struct tcp_sock *tp = tcp_sk(leg->sk);
	enum stcp_look look = STCP_LOOK_WAITING;

	if (!stcp_leg_trylock(leg))
		return STCP_LOOK_WAITING;
	if (tp->write_seq == tp->snd_una) {
		stcp_leg_ease(leg, false);
		look = STCP_LOOK_AT_REST;
	} else if (tp->packets_out || leg->acknowledged != tp->snd_una) {
		stcp_leg_ease(leg, false);
	} else if (!leg->eased) {
		stcp_leg_ease(leg, true);
	} else if (stcp_leg_silent(leg)) {
		look = STCP_LOOK_DEAD;
	}
	leg->acknowledged = tp->snd_una;
	stcp_leg_unlock(leg);
	return look;
}
