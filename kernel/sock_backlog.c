// SPDX-License-Identifier: GPL-2.0
/*
 * The places of a listener: how many embryos it has, and which sources have them.
 *
 * The backlog bounds the embryos that are in the handshake or wait for accept(). Further
 * connections wait in TCP's queue, which is first in, first out. A source is an IPv4
 * address or an IPv6 /64. It has at most three quarters of the places, or all where there
 * are fewer than four. Further connections from it are closed.
 *
 * Two sources can still fill all places with silent connections, and a source can fill
 * the share of the listener's user. So an embryo loses its place when all of this holds:
 *  - the listener or the user's share is full, and a connection waits in TCP's queue;
 *  - for STCP_SILENT it has been the peer's turn: the agent has the embryo and has read
 *    all that has come.
 * Embryos that wait for the agent keep their places, before it takes them and while it has
 * not read what has come. So a burst waits in TCP's queue, connections wait for an agent
 * that restarts, and an agent that is slow loses none.
 *
 * The loser is the oldest embryo of the source that has most such embryos, as in the agent
 * (stcp_proxy/agent/places.py). Sources that have equally many lose in any order.
 *
 * Nothing stores when the peer's turn began. So a look at the embryos stores when it first
 * finds that it has. Looks happen only while a connection waits for a place: every embryo
 * has the whole STCP_SILENT from the first of them on.
 */
#include <linux/jhash.h>
#include <linux/random.h>
#include <net/tcp.h>

#include "sock_internal.h"

/* How long it is the peer's turn before an embryo may lose its place. */
#define STCP_SILENT		HZ
/* Time between two looks of which the first found too few embryos to end. */
#define STCP_LOOK_AGAIN		msecs_to_jiffies(250)

enum { STCP_SOURCE_BUCKETS = 64 };	/* a power of two */

/* Does a connection wait in TCP's queue? */
bool stcp_listener_queued(const struct stcp_listener *l)
{
	return !reqsk_queue_empty(&inet_csk(l->s->inner->sk)->icsk_accept_queue);
}

/* Has the listener a place? */
bool stcp_listener_room(struct stcp_listener *l)
{
	bool room;

	spin_lock_bh(&l->lock);
	room = !l->closed && l->embryo_count + l->ready_count < l->limit;
	spin_unlock_bh(&l->lock);
	return room;
}

static void stcp_embryo_source(struct stcp_sock *s)
{
	const struct sock *isk = s->inner->sk;

	if (isk->sk_family == AF_INET) {
		ipv6_addr_set_v4mapped(isk->sk_daddr, &s->source);
		return;
	}
	s->source = isk->sk_v6_daddr;
	if (!ipv6_addr_v4mapped(&s->source))
		memset(s->source.s6_addr + 8, 0, 8);
}

/* Count an embryo in, unless its source has its share. */
bool stcp_listener_admit(struct stcp_listener *l, struct stcp_sock *s)
{
	struct stcp_sock *other;
	unsigned int same = 0;
	bool admit;

	stcp_embryo_source(s);
	spin_lock_bh(&l->lock);
	list_for_each_entry(other, &l->embryos, embryo)
		same += ipv6_addr_equal(&other->source, &s->source);
	admit = !l->closed && same < l->limit - l->limit / 4;
	if (admit) {
		list_add_tail(&s->embryo, &l->embryos);
		l->embryo_count++;
	}
	spin_unlock_bh(&l->lock);
	return admit;
}

/* -- ending silent ones ---------------------------------------------------------- */

static u32 stcp_source_bucket(const struct stcp_sock *s, u32 key)
{
	return jhash2((const u32 *)&s->source, sizeof(s->source) / sizeof(u32), key) &
	       (STCP_SOURCE_BUCKETS - 1);
}

/*
 * Has it been the peer's turn for long? An embryo that is on a list of the listener has its
 * inner socket.
 */
static bool stcp_embryo_silent(struct stcp_sock *s, unsigned long now)
{
	bool was = s->peers_turn;

	s->peers_turn = READ_ONCE(s->handshake.state) == STCP_HS_ACCEPTED &&
			!tcp_inq(s->inner->sk);
	if (s->peers_turn && !was)
		s->peers_turn_since = now;
	return s->peers_turn && !time_before(now, s->peers_turn_since + STCP_SILENT);
}

/* Split @most losers by bucket: each time one of the bucket that has most left. */
static void stcp_losers_by_bucket(unsigned int *count, unsigned int *losers,
				  unsigned int most)
{
	unsigned int i, largest;

	while (most--) {
		for (largest = 0, i = 1; i < STCP_SOURCE_BUCKETS; i++)
			if (count[i] > count[largest])
				largest = i;
		if (!count[largest])
			return;
		count[largest]--;
		losers[largest]++;
	}
}

/*
 * End up to @most silent embryos. Call under l->lock. Return: how many.
 *
 * There may be thousands of embryos, so there are two passes: the first counts them by
 * source, and the second ends the oldest of the sources that have most. A table of sources
 * would need memory, so the first pass counts in buckets of a hash of the source. Sources
 * in one bucket count as one source. Each look has a new random key for the hash: nobody
 * can choose the bucket of somebody else, and two sources seldom share one twice.
 *
 * An embryo that loses its place goes to the dead. The work item ends its handshake when it
 * frees the embryo. The agent may end the handshake before, which is harmless:
 *  - with a session, while the embryo is among the dead: stcp_embryo_over() makes it ready,
 *    as if the look had come later;
 *  - with a session, after the work item has taken it from the dead: it is on no list, so
 *    stcp_embryo_over() leaves it alone, and the work item frees it with its session;
 *  - with an error: it stays dead.
 * The dead count in embryo_count too, so the move to the dead changes no count.
 */
static unsigned int stcp_listener_look(struct stcp_listener *l, unsigned int most)
{
	unsigned int count[STCP_SOURCE_BUCKETS] = {}, losers[STCP_SOURCE_BUCKETS] = {};
	unsigned long now = jiffies;
	unsigned int ended = 0;
	u32 key = get_random_u32(), bucket;
	struct stcp_sock *s, *after;

	list_for_each_entry(s, &l->embryos, embryo)
		if (stcp_embryo_silent(s, now))
			count[stcp_source_bucket(s, key)]++;
	stcp_losers_by_bucket(count, losers, most);
	list_for_each_entry_safe(s, after, &l->embryos, embryo) {
		if (ended == most)
			break;
		if (!stcp_embryo_silent(s, now))
			continue;
		bucket = stcp_source_bucket(s, key);
		if (losers[bucket]) {
			losers[bucket]--;
			list_move_tail(&s->embryo, &l->dead);
			ended++;
		}
	}
	return ended;
}

/*
 * A connection waits for a place: end silent embryos, at most one for each connection that
 * waits. Return: when the work item has to come again for that; MAX_JIFFY_OFFSET if
 * something else brings it. It comes at once after it has ended any, for it frees them.
 */
unsigned long stcp_listener_make_room(struct stcp_listener *l)
{
	unsigned int most = clamp_t(u32, READ_ONCE(l->s->inner->sk->sk_ack_backlog),
				    1, STCP_LISTEN_RUN);
	unsigned long delay = MAX_JIFFY_OFFSET, now = jiffies;
	unsigned int ended;

	spin_lock_bh(&l->lock);
	/* The dead free their places soon, and accept() frees those of ready embryos. */
	if (l->closed || !list_empty(&l->dead) || list_empty(&l->embryos))
		goto out;
	if (time_before(now, l->look)) {
		delay = l->look - now;
		goto out;
	}
	ended = stcp_listener_look(l, most);
	if (ended < most)
		l->look = now + STCP_LOOK_AGAIN;
	delay = ended ? 0 : STCP_LOOK_AGAIN;
out:
	spin_unlock_bh(&l->lock);
	return delay;
}
