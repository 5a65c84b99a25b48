// SPDX-License-Identifier: GPL-2.0
/*
 * Shares: how the users of a network namespace share its handshakes and its agent.
 *
 * A share is all handshakes of one user in one role: the sockets that the user connects,
 * or the embryos of the user's listeners. The user is the one who made the outermost user
 * namespace (owner.c), so a user has at most two shares, however many user ids it maps.
 *
 * Three things are shared:
 *
 * Room. A namespace has room for max_embryos handshakes. A share gets one more while it
 * has fewer than are free: the dynamic threshold of Choudhury and Hahne ("Dynamic Queue
 * Length Thresholds for Shared-Memory Packet Switches", 1998). A lone share gets half of
 * the room, k greedy ones get 1/(k+1) each and leave as much free. So a newcomer always
 * finds room, without a fixed part for each user.
 *
 * Turns. ACCEPT takes from the shares in turn, and the oldest of a share first. The roles
 * alternate: neither the sockets that connect nor the embryos wait for all of the other
 * role. A share that gets something pending joins the end of the line.
 *
 * Places. ACCEPT says for how many handshakes the agent has a place. The same threshold
 * bounds a share of sockets that connect: the agent gets no more of it while it has as
 * many as there are places without such sockets. The rest waits here, and its time goes
 * on. Embryos are always taken, for the agent gives the place of a stranger to a newcomer.
 *
 * A share is made with the first handshake of its user and freed with the last. agent->lock
 * protects all of it. Under this lock a share is looked up in a table by user. A search for
 * the next turn passes over shares that have used up their places. Each of these has
 * as many handshakes with the agent as places are free, so there are fewer of them than
 * places. Where no place is free, nothing is searched.
 */
#include <linux/err.h>
#include <linux/hash.h>
#include <linux/slab.h>

#include "sock_internal.h"

void stcp_shares_init(struct stcp_agent *agent)
{
	int i;

	for (i = 0; i < STCP_SHARE_BUCKETS; i++)
		INIT_HLIST_HEAD(&agent->shares[i]);
	INIT_LIST_HEAD(&agent->turns[STCP_INITIATOR]);
	INIT_LIST_HEAD(&agent->turns[STCP_RESPONDER]);
}

static struct hlist_head *stcp_share_bucket(struct stcp_agent *agent, kuid_t user)
{
	return &agent->shares[hash_32(__kuid_val(user), ilog2(STCP_SHARE_BUCKETS))];
}

static struct stcp_share *stcp_share_find(struct stcp_agent *agent, kuid_t user, u32 role)
{
	struct stcp_share *share;

	hlist_for_each_entry(share, stcp_share_bucket(agent, user), all)
		if (uid_eq(share->user, user) && share->role == role)
			return share;
	return NULL;
}

static struct stcp_share *stcp_share_add(struct stcp_agent *agent, struct stcp_share *share,
					 kuid_t user, u32 role)
{
	share->user = user;
	share->role = role;
	INIT_LIST_HEAD(&share->pending);
	INIT_LIST_HEAD(&share->turn);
	hlist_add_head(&share->all, stcp_share_bucket(agent, user));
	return share;
}

/*
 * Count one more handshake of @user in @role. May sleep. Return: its share, for
 * stcp_handshake_begin() or stcp_share_return(); -ENOBUFS without room, -ENOMEM.
 */
struct stcp_share *stcp_share_get(struct stcp_agent *agent, kuid_t user, u32 role)
{
	struct stcp_share *share, *spare = kzalloc(sizeof(*spare), GFP_KERNEL_ACCOUNT);
	unsigned int most = READ_ONCE(agent->max_embryos);

	if (!spare)
		return ERR_PTR(-ENOMEM);
	spin_lock_bh(&agent->lock);
	share = stcp_share_find(agent, user, role);
	if (agent->count >= most || (share && share->count >= most - agent->count)) {
		share = ERR_PTR(-ENOBUFS);
	} else {
		if (!share) {
			share = stcp_share_add(agent, spare, user, role);
			spare = NULL;
		}
		share->count++;
		agent->count++;
	}
	spin_unlock_bh(&agent->lock);
	kfree(spare);
	return share;
}

static void stcp_share_put(struct stcp_agent *agent, struct stcp_share *share)
{
	agent->count--;
	if (--share->count)
		return;
	hlist_del(&share->all);
	kfree(share);
}

/* The handshake that stcp_share_get() has counted does not begin. */
void stcp_share_return(struct stcp_agent *agent, struct stcp_share *share)
{
	spin_lock_bh(&agent->lock);
	stcp_share_put(agent, share);
	spin_unlock_bh(&agent->lock);
}

/* A handshake is pending from now on. Call under agent->lock. */
void stcp_share_pend(struct stcp_agent *agent, struct stcp_handshake *hs)
{
	struct stcp_share *share = hs->share;

	hs->state = STCP_HS_PENDING;
	list_move_tail(&hs->list, &share->pending);
	if (list_empty(&share->turn))
		list_add_tail(&share->turn, &agent->turns[share->role]);
}

static struct stcp_share *stcp_share_first(struct stcp_agent *agent, u32 role, u32 places)
{
	unsigned int used = agent->taken[STCP_INITIATOR];
	struct stcp_share *share;

	if (role == STCP_RESPONDER)
		return list_first_entry_or_null(&agent->turns[role], struct stcp_share, turn);
	if (used >= places)
		return NULL;
	list_for_each_entry(share, &agent->turns[role], turn)
		if (share->taken < places - used)
			return share;
	return NULL;
}

/*
 * Give the next handshake to an agent that has @places. Call under agent->lock. Return:
 * NULL when none is pending, or none that has a place.
 */
struct stcp_handshake *stcp_share_take(struct stcp_agent *agent, u32 places)
{
	struct stcp_share *share = stcp_share_first(agent, agent->next_role, places);
	struct stcp_handshake *hs;

	if (!share)
		share = stcp_share_first(agent, !agent->next_role, places);
	if (!share)
		return NULL;
	agent->next_role = !share->role;
	hs = list_first_entry(&share->pending, struct stcp_handshake, list);
	hs->state = STCP_HS_ACCEPTED;
	list_move_tail(&hs->list, stcp_accepted(agent, hs->id));
	share->taken++;
	agent->taken[share->role]++;
	if (list_empty(&share->pending))
		list_del_init(&share->turn);
	else
		list_move_tail(&share->turn, &agent->turns[share->role]);
	return hs;
}

/* A handshake is over, and on no list any more. Call under agent->lock. */
void stcp_share_leave(struct stcp_agent *agent, struct stcp_handshake *hs)
{
	struct stcp_share *share = hs->share;

	if (hs->state >= STCP_HS_ACCEPTED) {
		share->taken--;
		agent->taken[share->role]--;
	}
	hs->state = STCP_HS_NONE;
	hs->share = NULL;
	if (list_empty(&share->pending))
		list_del_init(&share->turn);
	stcp_share_put(agent, share);
}
