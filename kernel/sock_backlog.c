// SPDX-License-Identifier: GPL-2.0
/*
 * The places of a listener: how many embryos it has, and which sources have them.
 */
#include <net/inet_connection_sock.h>

#include "sock_internal.h"

/* Is there a connection to take, and room for it among the listener's own? */
bool stcp_listener_wants(struct stcp_listener *l)
{
	struct sock *isk = l->s->inner->sk;
	bool room;

	if (reqsk_queue_empty(&inet_csk(isk)->icsk_accept_queue))
		return false;
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
	unsigned int same = 0, share;
	struct stcp_sock *other;
	bool admit;

	stcp_embryo_source(s);
	spin_lock_bh(&l->lock);
	list_for_each_entry(other, &l->embryos, embryo)
		same += ipv6_addr_equal(&other->source, &s->source);
	share = l->limit - l->limit / 4;
	admit = !l->closed && same < share;
	if (admit) {
		list_add_tail(&s->embryo, &l->embryos);
		l->embryo_count++;
	}
	spin_unlock_bh(&l->lock);
	return admit;
}
