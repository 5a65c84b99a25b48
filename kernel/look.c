// SPDX-License-Identifier: GPL-2.0
/*
 * Looks: tell a reader that pauses from a path that is lost.
 *
 * TCP applies TCP_USER_TIMEOUT to a closed window too: a peer that answers every
 * window probe, and only does not read, counts as unacknowledged and loses its
 * connection. So the clock looks at a leg now and then:
 *
 * - Nothing waits, segments are under way, the peer has acknowledged bytes since the
 *   last look, or its window is open: the option stays, and TCP decides. Bytes that
 *   wait behind an open window mean that this host could not send them: the link is
 *   down, or a local firewall drops packets.
 * - Bytes wait behind a closed window: the option is lifted. The peer is dead once it
 *   has left several window probes unanswered for as long as the option said. A number
 *   of probes alone is no proof: four of them fit into three seconds. Nor is the time
 *   since the last segment came: a connection may have been quiet for long before.
 *
 * Without the option TCP's own number of probes decides. The engine in user space
 * has the same rule (stcp_proxy/relay/zero_window.py).
 */
#include "internal.h"

/* Window probes without an answer below which a peer is never dead: some get lost. */
#define STCP_DEAD_AFTER_PROBES	4

/*
 * Lift TCP_USER_TIMEOUT, or restore it where the owner has not set it meanwhile. The
 * socket is locked.
 */
void stcp_leg_ease(struct stcp_leg *leg, bool ease)
{
	struct inet_connection_sock *icsk = inet_csk(leg->sk);

	if (!ease)
		leg->unanswered = false;
	if (leg->eased == ease)
		return;
	if (ease) {
		leg->user_timeout = icsk->icsk_user_timeout;
		WRITE_ONCE(icsk->icsk_user_timeout, 0);
	} else if (!icsk->icsk_user_timeout) {
		WRITE_ONCE(icsk->icsk_user_timeout, leg->user_timeout);
	}
	leg->eased = ease;
}

/*
 * Does the peer's window keep the waiting bytes back? TCP sends no part of a segment
 * into a small window.
 */
static bool stcp_window_closed(const struct tcp_sock *tp)
{
	return !tp->packets_out && (!tp->snd_wnd || tp->snd_wnd < tp->mss_cache);
}

/* Has a peer with a closed window been silent for as long as the option allows? */
static bool stcp_leg_silent(struct stcp_leg *leg)
{
	u32 probes = inet_csk(leg->sk)->icsk_probes_out;

	if (!probes) {
		leg->unanswered = false;
		return false;
	}
	if (!leg->unanswered)
		leg->unanswered_since = jiffies;
	leg->unanswered = true;
	return leg->user_timeout && probes >= STCP_DEAD_AFTER_PROBES &&
	       time_after_eq(jiffies, leg->unanswered_since +
				      msecs_to_jiffies(leg->user_timeout));
}

/* Something was sent a while ago: see what became of it. */
enum stcp_look stcp_leg_look(struct stcp_leg *leg)
{
	const struct tcp_sock *tp = tcp_sk(leg->sk);
	enum stcp_look look = STCP_LOOK_WAITING;

	if (!stcp_leg_trylock(leg))
		return STCP_LOOK_WAITING;
	if (tp->write_seq == tp->snd_una) {
		stcp_leg_ease(leg, false);
		look = STCP_LOOK_AT_REST;
	} else if (leg->acknowledged != tp->snd_una || !stcp_window_closed(tp)) {
		stcp_leg_ease(leg, false);
	} else {
		stcp_leg_ease(leg, true);
		if (stcp_leg_silent(leg))
			look = STCP_LOOK_DEAD;
	}
	leg->acknowledged = tp->snd_una;
	stcp_unlock(leg->sk);
	return look;
}
