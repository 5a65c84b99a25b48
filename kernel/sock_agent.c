// SPDX-License-Identifier: GPL-2.0
/*
 * Handshakes: what waits for the agent of a network namespace, and how it ends.
 *
 * A handshake is a part of its outer socket. It is on one of three lists while TCP
 * connects, while it waits for the agent (a list of its user's share, sock_share.c), and
 * while the agent has it. It leaves the lists exactly once, by whichever comes first: the
 * agent's DONE, the agent's death, the end of its time, the end of TCP's connection, or
 * the outer socket's close(). All of these take agent->lock, and none sleeps. What holds a
 * handshake is found by its number, never by a pointer, so nobody else keeps a socket
 * alive.
 *
 * The end writes the outer socket's session or error and its state, in this order,
 * and wakes whoever waits. For an embryo it tells the listener.
 *
 * DONE makes ciphers, which sleeps, so it marks the handshake first (FINISHING): a
 * second DONE does not find it. It then comes back with the number, and if the
 * handshake is gone by then, so is the session.
 */
#include <linux/file.h>
#include <linux/memcontrol.h>
#include <net/netns/generic.h>

#include "sock_internal.h"

/* Handshakes of an agent that is gone, which end before others get the lock. */
#define STCP_GONE_AT_ONCE	64

static unsigned int stcp_agent_id __read_mostly;

struct stcp_agent *stcp_agent_of(const struct net *net)
{
	return net_generic(net, stcp_agent_id);
}

bool stcp_agent_there(const struct net *net)
{
	return READ_ONCE(stcp_agent_of(net)->portid);
}

/* A look without the lock: whoever acts on it looks again under the lock. */
bool stcp_agent_is(const struct stcp_agent *agent, u32 portid)
{
	return READ_ONCE(agent->portid) == portid;
}

static struct stcp_sock *stcp_handshake_sock(struct stcp_handshake *hs)
{
	return container_of(hs, struct stcp_sock, handshake);
}

/*
 * Take a handshake from its list: this is its end. Call under agent->lock, with a
 * session or a negative errno, or with neither where nobody is to be told.
 */
static void stcp_handshake_leave(struct stcp_agent *agent, struct stcp_sock *s,
				 struct stcp_session *session, int err)
{
	struct stcp_handshake *hs = &s->handshake;
	struct sock *sk = stcp_outer(s);
	struct net *net = sock_net(sk);

	list_del_init(&hs->list);
	stcp_share_leave(agent, hs);
	stcp_timer_delete(&hs->timer);
	if (!session && !err)
		return;
	if (session)
		stcp_stat_add(net, STCP_STAT_SESSIONS, 1);
	stcp_stat_add(net, session ? STCP_STAT_SESSIONS_LIVE :
				     STCP_STAT_HANDSHAKES_FAILED, 1);
	/* A reader of the session or the state sees earlier writes too. */
	smp_store_release(&s->session, session);
	if (err)
		WRITE_ONCE(sk->sk_err, -err);
	stcp_state_store(sk, session ? TCP_ESTABLISHED : TCP_CLOSE);
	if (s->parent) {
		stcp_embryo_over(s, session);
		return;
	}
	sk->sk_state_change(sk);
	/* SIGIO, as TCP sends it at the end of connect(). */
	sk_wake_async(sk, SOCK_WAKE_IO, session ? POLL_OUT : POLL_ERR);
}

/* It may come late, for the attempt after the one whose time was over. */
void stcp_handshake_expired(struct timer_list *timer)
{
	struct stcp_handshake *hs = container_of(timer, struct stcp_handshake, timer);
	struct stcp_sock *s = stcp_handshake_sock(hs);
	struct stcp_agent *agent = stcp_agent_of(sock_net(stcp_outer(s)));

	spin_lock_bh(&agent->lock);
	if (hs->state > STCP_HS_CONNECTING && !time_before(jiffies, hs->deadline))
		stcp_handshake_leave(agent, s, NULL, -ETIMEDOUT);
	spin_unlock_bh(&agent->lock);
}

/* The name that the application has chosen, or else the namespace. */
static void stcp_handshake_names(struct stcp_agent *agent, struct stcp_sock *s)
{
	struct stcp_handshake *hs = &s->handshake;

	hs->service[0] = 0;
	if (hs->role == STCP_INITIATOR)
		strscpy(hs->service, s->service[0] ? s->service : agent->service,
			sizeof(hs->service));
	strscpy(hs->identity, s->identity[0] ? s->identity : agent->identity,
		sizeof(hs->identity));
}

/*
 * Begin: TCP is about to connect. @s->handshake has its user and its memcg, and @share
 * has counted it (stcp_share_get()).
 */
void stcp_handshake_begin(struct stcp_sock *s, struct stcp_share *share)
{
	struct stcp_agent *agent = stcp_agent_of(sock_net(stcp_outer(s)));
	struct stcp_handshake *hs = &s->handshake;

	spin_lock_bh(&agent->lock);
	hs->share = share;
	hs->role = share->role;
	stcp_handshake_names(agent, s);
	hs->id = ++agent->last_id;
	hs->state = STCP_HS_CONNECTING;
	list_add_tail(&hs->list, &agent->connecting);
	stcp_state_store(stcp_outer(s), TCP_SYN_SENT);
	spin_unlock_bh(&agent->lock);
}

/* Tell the agent, once until it has asked for all. Without memory the next one does it. */
static void stcp_agent_tell(struct net *net, u32 portid)
{
	struct stcp_agent *agent = stcp_agent_of(net);

	if (stcp_netlink_ready(net, portid))
		return;
	spin_lock_bh(&agent->lock);
	agent->told = false;
	spin_unlock_bh(&agent->lock);
}

/* TCP has connected: from now on its time runs. */
void stcp_handshake_connected(struct stcp_sock *s)
{
	struct net *net = sock_net(stcp_outer(s));
	struct stcp_agent *agent = stcp_agent_of(net);
	struct stcp_handshake *hs = &s->handshake;
	u32 tell = 0;

	spin_lock_bh(&agent->lock);
	if (hs->state == STCP_HS_CONNECTING) {
		stcp_share_pend(agent, hs);
		hs->deadline = jiffies + msecs_to_jiffies(READ_ONCE(agent->handshake_ms));
		mod_timer(&hs->timer, hs->deadline);
		if (!agent->told)
			tell = agent->portid;
		if (tell)
			agent->told = true;
		/* A listener's peers may wait for an agent that starts again. */
		if (!agent->portid && hs->role == STCP_INITIATOR)
			stcp_handshake_leave(agent, s, NULL, -ESRCH);
	}
	spin_unlock_bh(&agent->lock);
	if (tell)
		stcp_agent_tell(net, tell);
}

/* TCP's connection is over. What the agent has it finds out itself, and knows why. */
void stcp_handshake_fail(struct stcp_sock *s, int err)
{
	struct stcp_agent *agent = stcp_agent_of(sock_net(stcp_outer(s)));
	struct stcp_handshake *hs = &s->handshake;

	spin_lock_bh(&agent->lock);
	if (hs->state == STCP_HS_CONNECTING || hs->state == STCP_HS_PENDING)
		stcp_handshake_leave(agent, s, NULL, -err);
	spin_unlock_bh(&agent->lock);
}

/*
 * The outer socket gives up: tell it @err, or nobody if that is 0. Once this has
 * returned, nobody but the owner looks at the handshake. May sleep.
 */
void stcp_handshake_cancel(struct stcp_sock *s, int err)
{
	struct stcp_agent *agent = stcp_agent_of(sock_net(stcp_outer(s)));
	struct stcp_handshake *hs = &s->handshake;

	spin_lock_bh(&agent->lock);
	if (hs->state != STCP_HS_NONE)
		stcp_handshake_leave(agent, s, NULL, err);
	spin_unlock_bh(&agent->lock);
	stcp_timer_delete_sync(&hs->timer);
}

/* -- the agent's side -------------------------------------------------------- */

/*
 * ACCEPT: the next that is pending, for an agent that has @places. @to becomes a copy of
 * it, with a reference on the file of the inner socket in @file. Return: 0; -EPERM from
 * anybody but the agent; -ENOENT, also when nothing that is pending has a place.
 */
int stcp_handshake_take(struct stcp_agent *agent, u32 portid, u32 places,
			struct stcp_taken *to)
{
	struct stcp_handshake *hs = NULL;
	int err = -ENOENT;

	spin_lock_bh(&agent->lock);
	if (portid != agent->portid)
		err = -EPERM;
	else
		hs = stcp_share_take(agent, places);
	if (hs) {
		hs->taken = true;
		to->id = hs->id;
		to->role = hs->role;
		to->user = hs->user;
		to->left_ms = time_before(jiffies, hs->deadline) ?
			      jiffies_to_msecs(hs->deadline - jiffies) : 0;
		strscpy(to->service, hs->service, sizeof(to->service));
		strscpy(to->identity, hs->identity, sizeof(to->identity));
		to->file = get_file(stcp_handshake_sock(hs)->file);
		stcp_inner_hold(stcp_handshake_sock(hs)->inner);
		err = 0;
	} else if (err == -ENOENT) {
		agent->told = false;
	}
	spin_unlock_bh(&agent->lock);
	return err;
}

static struct stcp_handshake *stcp_handshake_find(struct stcp_agent *agent, u64 id)
{
	struct stcp_handshake *hs;

	list_for_each_entry(hs, stcp_accepted(agent, id), list)
		if (hs->id == id)
			return hs;
	return NULL;
}

/* DONE begins. Return: the file of the inner socket, and who pays; or an ERR_PTR(). */
struct file *stcp_handshake_finishing(struct stcp_agent *agent, u64 id, u32 portid,
				      struct mem_cgroup **memcg)
{
	struct file *file = ERR_PTR(-ENOENT);
	struct stcp_handshake *hs;

	spin_lock_bh(&agent->lock);
	if (portid != agent->portid) {
		file = ERR_PTR(-EPERM);
		goto out;
	}
	hs = stcp_handshake_find(agent, id);
	if (hs && hs->state == STCP_HS_ACCEPTED) {
		hs->state = STCP_HS_FINISHING;
		file = get_file(stcp_handshake_sock(hs)->file);
		*memcg = hs->memcg;
		if (*memcg)
			css_get(&(*memcg)->css);
	}
out:
	spin_unlock_bh(&agent->lock);
	return file;
}

/* DONE ends. Return: whether the handshake was still there, and has taken @session. */
bool stcp_handshake_finish(struct stcp_agent *agent, u64 id,
			   struct stcp_session *session, int err)
{
	struct stcp_handshake *hs;

	spin_lock_bh(&agent->lock);
	hs = stcp_handshake_find(agent, id);
	if (hs)
		stcp_handshake_leave(agent, stcp_handshake_sock(hs), session, err);
	spin_unlock_bh(&agent->lock);
	return hs;
}

/* REGISTER. Return: 0, or -EBUSY while there is another agent. */
int stcp_agent_register(struct stcp_agent *agent, u32 portid)
{
	int err = 0;

	spin_lock_bh(&agent->lock);
	if (agent->portid && agent->portid != portid) {
		err = -EBUSY;
	} else {
		WRITE_ONCE(agent->portid, portid);
		agent->told = false;
	}
	spin_unlock_bh(&agent->lock);
	return err;
}

/*
 * A netlink port was closed. If it was the agent's, what it had accepted fails. There may
 * be many, so the lock is given back now and then. The next agent does not find them any
 * more; their time, their close() and the end of TCP's connection still do.
 */
void stcp_agent_gone(struct stcp_agent *agent, u32 portid)
{
	struct stcp_handshake *hs;
	int i, left = STCP_GONE_AT_ONCE;
	LIST_HEAD(gone);

	spin_lock_bh(&agent->lock);
	if (portid == agent->portid) {
		WRITE_ONCE(agent->portid, 0);
		for (i = 0; i < STCP_ACCEPTED_BUCKETS; i++)
			list_splice_init(&agent->accepted[i], &gone);
	}
	while ((hs = list_first_entry_or_null(&gone, struct stcp_handshake, list))) {
		stcp_handshake_leave(agent, stcp_handshake_sock(hs), NULL, -ECONNABORTED);
		if (--left)
			continue;
		left = STCP_GONE_AT_ONCE;
		spin_unlock_bh(&agent->lock);
		cond_resched();
		spin_lock_bh(&agent->lock);
	}
	spin_unlock_bh(&agent->lock);
}

/* -- network namespaces ------------------------------------------------------ */

static int __net_init stcp_agent_init(struct net *net)
{
	struct stcp_agent *agent = stcp_agent_of(net);
	int i;

	spin_lock_init(&agent->lock);
	INIT_LIST_HEAD(&agent->connecting);
	for (i = 0; i < STCP_ACCEPTED_BUCKETS; i++)
		INIT_LIST_HEAD(&agent->accepted[i]);
	stcp_shares_init(agent);
	agent->handshake_ms = 10000;
	agent->max_embryos = 4096;
	return stcp_sysctl_init(net, agent);
}

static void __net_exit stcp_agent_exit(struct net *net)
{
	stcp_sysctl_exit(stcp_agent_of(net));
}

static struct pernet_operations stcp_agent_ops = {
	.init = stcp_agent_init,
	.exit = stcp_agent_exit,
	.id   = &stcp_agent_id,
	.size = sizeof(struct stcp_agent),
};

int stcp_agents_init(void)
{
	return register_pernet_subsys(&stcp_agent_ops);
}

void stcp_agents_exit(void)
{
	unregister_pernet_subsys(&stcp_agent_ops);
}
