// SPDX-License-Identifier: GPL-2.0
/*
 * What the agent says and hears: the generic netlink family "stcp".
 *
 * REGISTER, ACCEPT and DONE need CAP_NET_ADMIN over the network namespace, and the last
 * two come from the port that has registered. READY is a hint to that port, and comes
 * once until the agent has asked until ENOENT. Without memory it is lost, so
 * an agent asks from time to time too.
 *
 * Commands run side by side (parallel_ops): none waits for the agent of another
 * namespace. None waits for a lock that user space can hold, or for the memory of a user
 * (memory.c), for generic netlink holds a lock of its own meanwhile, which everybody in
 * the machine needs.
 *
 * The keys in a DONE are wiped from the message, whatever becomes of it, but for a message
 * that is not of the right form: it does not get here.
 */
#include <linux/cred.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/memcontrol.h>
#include <linux/netlink.h>
#include <net/genetlink.h>

#include "sock_internal.h"

static struct genl_family stcp_genl;

static const struct nla_policy stcp_register_policy[STCP_A_INTERFACE + 1] = {
	[STCP_A_INTERFACE]	= { .type = NLA_U32 },
};

static const struct nla_policy stcp_accept_policy[STCP_A_PLACES + 1] = {
	[STCP_A_PLACES]		= { .type = NLA_U32 },
};

static const struct nla_policy stcp_done_policy[STCP_A_INTERFACE + 1] = {
	[STCP_A_ID]		= { .type = NLA_U64 },
	[STCP_A_ERROR]		= { .type = NLA_S32 },
	[STCP_A_SEND_KEY]	= NLA_POLICY_EXACT_LEN(STCP_KEY_LEN),
	[STCP_A_SEND_COUNTER]	= { .type = NLA_U64 },
	[STCP_A_RECEIVE_KEY]	= NLA_POLICY_EXACT_LEN(STCP_KEY_LEN),
	[STCP_A_RECEIVE_COUNTER] = { .type = NLA_U64 },
	[STCP_A_WIRE_BYTES]	= { .type = NLA_BINARY, .len = STCP_MAX_WIRE_BYTES },
	[STCP_A_PEER]		= { .type = NLA_STRING, .len = STCP_MAX_PEER },
	[STCP_A_CHANNEL_ID]	= NLA_POLICY_EXACT_LEN(STCP_CHANNEL_ID_LEN),
};

static struct stcp_agent *stcp_genl_agent(struct genl_info *info)
{
	return stcp_agent_of(genl_info_net(info));
}

static int stcp_genl_register(struct sk_buff *skb, struct genl_info *info)
{
	if (!info->attrs[STCP_A_INTERFACE])
		return -EINVAL;
	if (nla_get_u32(info->attrs[STCP_A_INTERFACE]) != STCP_AGENT_INTERFACE)
		return -EPROTONOSUPPORT;
	return stcp_agent_register(stcp_genl_agent(info), info->snd_portid);
}

/*
 * A user that the agent's namespace does not know is (uid_t)-1, which no rule can name.
 * The overflow user would be "nobody", whom a rule may name.
 */
static int stcp_put_taken(struct sk_buff *reply, const struct stcp_taken *t, int fd)
{
	if (nla_put_u64_64bit(reply, STCP_A_ID, t->id, 0) ||
	    nla_put_s32(reply, STCP_A_FD, fd) ||
	    nla_put_u32(reply, STCP_A_ROLE, t->role) ||
	    nla_put_u32(reply, STCP_A_TIMEOUT_MS, t->left_ms) ||
	    nla_put_u32(reply, STCP_A_UID, from_kuid(current_user_ns(), t->user)))
		return -EMSGSIZE;
	if (t->identity[0] && nla_put_string(reply, STCP_A_IDENTITY, t->identity))
		return -EMSGSIZE;
	if (t->service[0] && nla_put_string(reply, STCP_A_SERVICE, t->service))
		return -EMSGSIZE;
	return 0;
}

static int stcp_reply_taken(struct genl_info *info, const struct stcp_taken *t, int fd)
{
	struct sk_buff *reply = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	void *header;
	int err;

	if (!reply)
		return -ENOMEM;
	header = genlmsg_put_reply(reply, info, &stcp_genl, 0, STCP_CMD_ACCEPT);
	err = header ? stcp_put_taken(reply, t, fd) : -EMSGSIZE;
	if (err) {
		nlmsg_free(reply);
		return err;
	}
	genlmsg_end(reply, header);
	return genlmsg_reply(reply, info);
}

/* What is asked for first: a table of some thousand descriptors. */
#define STCP_TABLE_SIZE		STCP_MAX_FRAME

/*
 * A descriptor of the agent. Its table may have to grow, which must not reclaim the
 * memory of the agent's cgroup here. A cgroup at its limit is no reason for the agent to
 * stop, and a table grows only as far as the limit of descriptors.
 */
static int stcp_accept_fd(void)
{
	struct stcp_payment payment;
	int fd;

	if (!stcp_pay_begin(&payment, NULL, STCP_TABLE_SIZE, true))
		return -ENOMEM;
	fd = get_unused_fd_flags(O_CLOEXEC);
	stcp_pay_end(&payment);
	return fd;
}

static int stcp_genl_accept(struct sk_buff *skb, struct genl_info *info)
{
	struct stcp_agent *agent = stcp_genl_agent(info);
	u32 places = U32_MAX;
	struct stcp_taken taken;
	int fd, err;

	/* From anybody else nothing is taken, and nothing grows. */
	if (!stcp_agent_is(agent, info->snd_portid))
		return -EPERM;
	fd = stcp_accept_fd();
	if (fd < 0)
		return fd;
	if (info->attrs[STCP_A_PLACES])
		places = nla_get_u32(info->attrs[STCP_A_PLACES]);
	err = stcp_handshake_take(agent, info->snd_portid, places, &taken);
	if (err)
		goto err_fd;
	err = stcp_reply_taken(info, &taken, fd);
	if (err)
		goto err_taken;
	fd_install(fd, taken.file);
	return 0;

err_taken:
	/* The agent does not know of it, so nobody would end it. */
	stcp_handshake_finish(agent, taken.id, NULL, -ECONNABORTED);
	fput(taken.file);
err_fd:
	put_unused_fd(fd);
	return err;
}

static bool stcp_may_tell(int error)
{
	switch (-error) {
	case EACCES: case EAGAIN: case ECONNABORTED: case ECONNREFUSED: case ECONNRESET:
	case EHOSTUNREACH: case EKEYREJECTED: case EKEYEXPIRED: case EKEYREVOKED:
	case ENETUNREACH: case ENOKEY: case EPERM: case EPROTO: case EPROTONOSUPPORT:
	case ESRCH: case ETIMEDOUT: case EUSERS:
		return true;
	default:
		return false;
	}
}

/* Return: 0; -EINVAL or -EKEYEXPIRED for what no session can be made of. */
static int stcp_done_args(struct genl_info *info, struct stcp_session_args *args)
{
	struct nlattr **a = info->attrs;

	if (!a[STCP_A_SEND_KEY] || !a[STCP_A_SEND_COUNTER] || !a[STCP_A_RECEIVE_KEY] ||
	    !a[STCP_A_RECEIVE_COUNTER] || !a[STCP_A_CHANNEL_ID])
		return -EINVAL;
	args->send_key = nla_data(a[STCP_A_SEND_KEY]);
	args->send_counter = nla_get_u64(a[STCP_A_SEND_COUNTER]);
	args->receive_key = nla_data(a[STCP_A_RECEIVE_KEY]);
	args->receive_counter = nla_get_u64(a[STCP_A_RECEIVE_COUNTER]);
	args->channel_id = nla_data(a[STCP_A_CHANNEL_ID]);
	if (a[STCP_A_WIRE_BYTES]) {
		args->wire_bytes = nla_data(a[STCP_A_WIRE_BYTES]);
		args->wire_len = nla_len(a[STCP_A_WIRE_BYTES]);
	}
	if (a[STCP_A_PEER]) {
		args->peer = nla_data(a[STCP_A_PEER]);
		args->peer_len = strnlen(args->peer, nla_len(a[STCP_A_PEER]));
	}
	if (args->send_counter == STCP_REKEY_NONCE ||
	    args->receive_counter == STCP_REKEY_NONCE)
		return -EKEYEXPIRED;
	return 0;
}

/* A session takes this much besides bytes that the agent has read, which come twice. */
#define STCP_SESSION_SIZE	8192

/* A session of the inner socket in @file, paid for by @memcg; or an ERR_PTR(). */
static struct stcp_session *stcp_done_session(const struct stcp_session_args *args,
					      struct file *file, struct mem_cgroup *memcg)
{
	u32 size = min_t(u32, STCP_SESSION_SIZE + 2 * args->wire_len, STCP_MAX_FRAME);
	struct stcp_session *session;
	struct stcp_payment payment;
	int err;

	if (!stcp_pay_begin(&payment, memcg, size, false))
		return ERR_PTR(-ENOMEM);
	session = stcp_session_create(args);
	stcp_pay_end(&payment);
	if (IS_ERR(session))
		return session;
	err = stcp_inner_seize(sock_from_file(file), session);
	if (!err)
		return session;
	stcp_session_free(session);
	return ERR_PTR(err);
}

static int stcp_done(struct genl_info *info, const struct stcp_session_args *args, int err)
{
	struct stcp_agent *agent = stcp_genl_agent(info);
	u64 id = nla_get_u64(info->attrs[STCP_A_ID]);
	struct stcp_session *session = NULL;
	struct mem_cgroup *memcg = NULL;
	struct file *file;
	int failed = 0;

	file = stcp_handshake_finishing(agent, id, info->snd_portid, &memcg);
	if (IS_ERR(file))
		return PTR_ERR(file);
	if (!err) {
		session = stcp_done_session(args, file, memcg);
		if (IS_ERR(session)) {
			failed = PTR_ERR(session);
			session = NULL;
			err = failed == -ENOMEM || failed == -ECONNRESET ? failed :
									   -ECONNABORTED;
		}
	}
	if (!stcp_handshake_finish(agent, id, session, err)) {
		if (session)
			stcp_session_free(session);
		failed = -ENOENT;
	}
	mem_cgroup_put(memcg);
	fput(file);
	return failed;
}

static void stcp_wipe(struct nlattr *key)
{
	if (key)
		memzero_explicit(nla_data(key), nla_len(key));
}

static int stcp_genl_done(struct sk_buff *skb, struct genl_info *info)
{
	struct stcp_session_args args = {};
	int error, err = -EINVAL;

	if (!info->attrs[STCP_A_ID] || !info->attrs[STCP_A_ERROR])
		goto out;
	error = nla_get_s32(info->attrs[STCP_A_ERROR]);
	if (error)
		err = stcp_may_tell(error) ? 0 : -EINVAL;
	else
		err = stcp_done_args(info, &args);
	if (!err)
		err = stcp_done(info, &args, error);
out:
	stcp_wipe(info->attrs[STCP_A_SEND_KEY]);
	stcp_wipe(info->attrs[STCP_A_RECEIVE_KEY]);
	return err;
}

static const struct genl_ops stcp_genl_ops[] = {
	{
		.cmd		= STCP_CMD_REGISTER,
		.flags		= GENL_UNS_ADMIN_PERM,
		.doit		= stcp_genl_register,
		.policy		= stcp_register_policy,
		.maxattr	= STCP_A_INTERFACE,
	},
	{
		.cmd		= STCP_CMD_ACCEPT,
		.flags		= GENL_UNS_ADMIN_PERM,
		.doit		= stcp_genl_accept,
		.policy		= stcp_accept_policy,
		.maxattr	= STCP_A_PLACES,
	},
	{
		.cmd		= STCP_CMD_DONE,
		.flags		= GENL_UNS_ADMIN_PERM,
		.doit		= stcp_genl_done,
		.policy		= stcp_done_policy,
		.maxattr	= STCP_A_INTERFACE,
	},
};

static struct genl_family stcp_genl = {
	.name		= STCP_GENL_NAME,
	.version	= STCP_GENL_VERSION,
	.maxattr	= STCP_A_PLACES,
	.module		= THIS_MODULE,
	.netnsok	= true,
	.parallel_ops	= true,
	.ops		= stcp_genl_ops,
	.n_ops		= ARRAY_SIZE(stcp_genl_ops),
};

/* From softirq too. Return: whether it was sent. */
bool stcp_netlink_ready(struct net *net, u32 portid)
{
	struct sk_buff *skb = genlmsg_new(0, GFP_ATOMIC | __GFP_NOWARN);
	void *header;

	if (!skb)
		return false;
	header = genlmsg_put(skb, 0, 0, &stcp_genl, 0, STCP_CMD_READY);
	if (!header) {
		nlmsg_free(skb);
		return false;
	}
	genlmsg_end(skb, header);
	return !genlmsg_unicast(net, skb, portid);
}

static int stcp_netlink_event(struct notifier_block *nb, unsigned long event, void *data)
{
	const struct netlink_notify *n = data;

	if (event == NETLINK_URELEASE && n->protocol == NETLINK_GENERIC)
		stcp_agent_gone(stcp_agent_of(n->net), n->portid);
	return NOTIFY_DONE;
}

static struct notifier_block stcp_netlink_notifier = {
	.notifier_call = stcp_netlink_event,
};

int stcp_netlink_init(void)
{
	int err = netlink_register_notifier(&stcp_netlink_notifier);

	if (err)
		return err;
	err = genl_register_family(&stcp_genl);
	if (err)
		netlink_unregister_notifier(&stcp_netlink_notifier);
	return err;
}

void stcp_netlink_exit(void)
{
	genl_unregister_family(&stcp_genl);
	netlink_unregister_notifier(&stcp_netlink_notifier);
}
