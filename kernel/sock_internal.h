/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sockets of the protocol: socket(AF_INET, SOCK_STREAM, STCP_PROTOCOL).
 *
 * The application has the outer socket. It has no place in TCP; it owns an inner
 * socket, an ordinary TCP connection, on which the frames travel. An agent in user
 * space makes the handshake on the inner socket (sock_agent.c). From then on the
 * data path runs in the system calls of the application, as in kTLS: send() seals
 * and hands a whole frame to TCP, recv() takes a whole frame and opens it.
 *
 * Locks, in the order in which they may nest (outer first)
 *   the outer socket lock    everything of the application's side: the session,
 *                            frames that are received or sent, sk_state but for
 *                            the exception below
 *   the inner socket lock    every call of TCP; sk_rcvlowat of the inner socket and
 *                            how much of a frame has been taken from it (in_end,
 *                            header), which is written under both locks
 *   inner sk_callback_lock   sk_user_data: which outer socket the callbacks see
 *   agent->lock              the handshakes of a network namespace: their lists and
 *                            states. While a handshake is on a list, this lock owns
 *                            sk_state, sk_err and @session of its outer socket, so
 *                            its end needs no lock that a user can hold
 *   listener->lock           the embryos of a listener
 *
 * The agent, workers and callbacks never sleep for a lock that user space can hold:
 * they try it. The agent serves all users of a namespace, a worker all of the
 * machine, and the agent itself may be hostile: whoever makes a user namespace
 * may be the agent in it. close() tries the inner socket lock too, for a kernel thread
 * may drop the last reference of a file, and closes files for everybody.
 *
 * Lifetimes. The outer socket lives until its close(), an embryo (an outer socket
 * that accept() has not given out) as long as its listener. It owns the inner
 * socket: by its file once there is one, for the agent gets a descriptor of
 * that. close() first takes the handshake from its list, then
 * takes the callbacks off, and only then lets go of the inner socket; each of these
 * steps excludes whoever could still look at the outer socket. Where a call of the
 * agent holds the inner socket lock, a work item does the last step later, with an RST,
 * and the outer socket lives until then. The struct socket
 * of an outer socket, struct proto and the inner operations hold references on
 * the module, and no inner socket has our callbacks once its outer socket is gone. Both
 * sockets hold references on the network namespace, so at its exit there is no socket
 * and no handshake left.
 */
#ifndef _STCP_SOCK_INTERNAL_H
#define _STCP_SOCK_INTERNAL_H

#include <linux/cred.h>
#include <linux/ipv6.h>
#include <linux/timer.h>
#include <net/inet_sock.h>

#include "internal.h"
#include "sock_session.h"

struct stcp_listener;

/* -- handshakes (sock_agent.c, sock_share.c, sock_netlink.c) ---------------- */

enum stcp_handshake_state {
	STCP_HS_NONE,		/* on no list: not begun, or over */
	STCP_HS_CONNECTING,	/* TCP connects */
	STCP_HS_PENDING,	/* waits for the agent */
	STCP_HS_ACCEPTED,	/* the agent has it */
	STCP_HS_FINISHING,	/* DONE is being carried out */
};

/* All handshakes of a user in one role (sock_share.c). Under agent->lock. */
struct stcp_share {
	struct hlist_node all;		/* in agent->shares */
	kuid_t user;
	u32 role;			/* enum stcp_socket_role */
	unsigned int count;		/* handshakes in any state, and those about to begin */
	unsigned int taken;		/* with the agent */
	struct list_head pending;	/* the oldest first */
	struct list_head turn;		/* in agent->turns, with something pending */
};

struct stcp_handshake {
	struct list_head list;		/* under agent->lock, as @state and @share */
	struct stcp_share *share;	/* while it is on a list */
	enum stcp_handshake_state state;
	u64 id;
	struct timer_list timer;
	unsigned long deadline;		/* jiffies */
	u32 role;			/* enum stcp_socket_role */
	bool taken;			/* the agent has had the inner socket */
	kuid_t user;			/* for the rules of the agent */
	kuid_t share_user;		/* whose share it counts in */
	struct mem_cgroup *memcg;	/* pays for the session */
	char service[STCP_MAX_NAME + 1];
	char identity[STCP_MAX_NAME + 1];
};

enum { STCP_SHARE_BUCKETS = 64 };	/* a power of two */
enum { STCP_ACCEPTED_BUCKETS = 256 };

/* The agent of a network namespace, and what waits for it. */
struct stcp_agent {
	spinlock_t lock;		/* taken with bottom halves off */
	u32 portid;			/* 0 without an agent */
	bool told;			/* READY was sent, and ACCEPT has not said ENOENT since */
	u64 last_id;
	struct list_head connecting;
	struct list_head accepted[STCP_ACCEPTED_BUCKETS];	/* by number */
	unsigned int count;		/* of all shares */
	unsigned int taken[2];		/* on @accepted, by role */
	struct hlist_head shares[STCP_SHARE_BUCKETS];	/* by user */
	struct list_head turns[2];	/* shares with something pending, by role */
	u32 next_role;			/* whose turn it is */
	/* sysctl */
	struct ctl_table_header *sysctl;
	struct ctl_table *table;
	char service[STCP_MAX_NAME + 1];
	char identity[STCP_MAX_NAME + 1];
	unsigned int handshake_ms;
	unsigned int max_embryos;
};

/* The reply to ACCEPT. */
struct stcp_taken {
	u64 id;
	u32 role, left_ms;
	kuid_t user;
	char service[STCP_MAX_NAME + 1];
	char identity[STCP_MAX_NAME + 1];
	struct file *file;
};

/* Where a handshake is that the agent has. */
static inline struct list_head *stcp_accepted(struct stcp_agent *agent, u64 id)
{
	return &agent->accepted[id % STCP_ACCEPTED_BUCKETS];
}

struct stcp_agent *stcp_agent_of(const struct net *net);
bool stcp_agent_there(const struct net *net);
bool stcp_agent_is(const struct stcp_agent *agent, u32 portid);
void stcp_handshake_expired(struct timer_list *timer);
void stcp_handshake_begin(struct stcp_sock *s, struct stcp_share *share);
void stcp_handshake_connected(struct stcp_sock *s);
void stcp_handshake_fail(struct stcp_sock *s, int err);
void stcp_handshake_cancel(struct stcp_sock *s, int err);
int stcp_handshake_take(struct stcp_agent *agent, u32 portid, u32 places,
			struct stcp_taken *to);
struct file *stcp_handshake_finishing(struct stcp_agent *agent, u64 id, u32 portid,
				      struct mem_cgroup **memcg);
bool stcp_handshake_finish(struct stcp_agent *agent, u64 id,
			   struct stcp_session *session, int err);
int stcp_agent_register(struct stcp_agent *agent, u32 portid);
void stcp_agent_gone(struct stcp_agent *agent, u32 portid);
int stcp_agents_init(void);
void stcp_agents_exit(void);

void stcp_shares_init(struct stcp_agent *agent);
struct stcp_share *stcp_share_get(struct stcp_agent *agent, kuid_t user, u32 role);
void stcp_share_return(struct stcp_agent *agent, struct stcp_share *share);
void stcp_share_pend(struct stcp_agent *agent, struct stcp_handshake *hs);
struct stcp_handshake *stcp_share_take(struct stcp_agent *agent, u32 places);
void stcp_share_leave(struct stcp_agent *agent, struct stcp_handshake *hs);

int stcp_netlink_init(void);
void stcp_netlink_exit(void);
bool stcp_netlink_ready(struct net *net, u32 portid);

int stcp_sysctl_init(struct net *net, struct stcp_agent *agent);
void stcp_sysctl_exit(struct stcp_agent *agent);

/* -- the outer socket (sock_life.c, sock_proto.c) ---------------------------------------- */

/* What was copied from the options of the outer socket last. Without padding. */
struct stcp_mirror {
	unsigned long pacing;
	u32 priority, mark;
	int sndbuf, rcvbuf, device;
	u8 reuse, reuseport, dontroute, keepalive;
};

struct stcp_sock {
	struct inet_sock inet;		/* first */
	struct socket *inner;
	struct file *file;		/* of @inner */
	struct stcp_mirror mirror;
	struct stcp_handshake handshake;
	bool attempted;			/* connect() has begun; no disconnect() since */
	struct stcp_session *session;	/* from the end of the handshake on */
	struct delayed_work retry;	/* sends what TCP had no memory for */
	struct stcp_listener *listener;	/* from listen() on */
	/* an embryo */
	struct stcp_sock *parent;	/* the listener, until accept() */
	struct list_head embryo;	/* on a list of it, under its lock */
	struct in6_addr source;		/* the prefix that counts as one source */
	bool peers_turn;		/* says a look (sock_backlog.c), under its lock */
	unsigned long peers_turn_since;	/* jiffies */
	char service[STCP_MAX_NAME + 1];	/* STCP_SERVICE */
	char identity[STCP_MAX_NAME + 1];	/* STCP_IDENTITY */
};

struct stcp6_sock {
	struct stcp_sock s;
	struct ipv6_pinfo inet6;	/* last */
};

static inline struct stcp_sock *stcp_sk(const struct sock *sk)
{
	return (struct stcp_sock *)sk;
}

static inline struct sock *stcp_outer(struct stcp_sock *s)
{
	return (struct sock *)s;
}

/* A reader of the state sees earlier writes too. */
static inline void stcp_state_store(struct sock *sk, int state)
{
	/* Pairs with inet_sk_state_load(). */
	smp_store_release(&sk->sk_state, state);
}

struct sock *stcp_embryo_alloc(struct sock *listener);
void stcp_handshake_payer(struct stcp_sock *s);
int stcp_sock_init(struct sock *sk);
int stcp_connect(struct sock *sk, STCP_SOCKADDR *addr, int len);
int stcp_disconnect(struct sock *sk, int flags);
void stcp_sock_destroy(struct sock *sk);
void stcp_sock_close(struct sock *sk, long timeout);
int stcp_socks_init(void);
void stcp_socks_exit(void);

/* -- the inner socket (sock_inner.c, sock_hook.c, sock_seize.c) -------------- */

int stcp_inner_create(struct stcp_sock *s);
int stcp_inner_own(struct stcp_sock *s, struct socket *inner);
void stcp_inner_learn_callbacks(const struct sock *isk);
int stcp_inner_hook(struct stcp_sock *s);
void stcp_inner_child(struct socket *inner);
void stcp_inner_leave_group(struct sock *isk);
void stcp_inner_listener(struct stcp_sock *s, struct stcp_listener *listener);
void stcp_inner_charge(struct stcp_sock *s);
void stcp_inner_hold(struct socket *inner);
int stcp_inner_seize(struct socket *inner, struct stcp_session *e);
void stcp_inner_unhook(struct stcp_sock *s);
void stcp_inner_close(struct stcp_sock *s, long timeout);
bool stcp_inner_close_later(struct stcp_sock *s);
void stcp_inner_abort(struct stcp_sock *s);
void stcp_inner_hang_up(struct stcp_sock *s);
void stcp_wake(struct sock *sk, __poll_t events);
/*
 * The least receive buffer of TCP. A frame of the largest size fits into the window
 * that TCP makes of it, half of it or so, with a segment to spare.
 */
#define STCP_MIN_RCVBUF		(4 * STCP_MAX_FRAME)

void stcp_inner_learn_ops(const struct socket *inner);

/* -- bytes of the inner socket (sock_stream.c) ------------------------------ */

void stcp_inner_expect(struct stcp_session *e, struct sock *isk);
bool stcp_inner_ready(const struct sock *isk);
int stcp_inner_recv(struct stcp_session *e, struct sock *isk);
int stcp_inner_send(struct stcp_session *e, struct sock *isk, bool more);
void stcp_inner_drain(struct sock *isk);

/* -- bytes (sock_send.c, sock_recv.c) --------------------------------------- */

int stcp_sock_sendmsg(struct sock *sk, struct msghdr *msg, size_t len);
int stcp_sock_flush(struct stcp_sock *s);
void stcp_sock_retry(struct work_struct *work);
int stcp_sock_say(struct stcp_sock *s, u8 type, u16 code);
int stcp_sock_recv(struct sock *sk, struct msghdr *msg, size_t len, int flags);
int stcp_sock_wait_connected(struct sock *sk, long *timeo);
int stcp_sock_step(struct stcp_sock *s);
u32 stcp_sock_look(struct stcp_sock *s, u32 enough);
int stcp_sock_inq(struct sock *sk);
__poll_t stcp_sock_readable(struct stcp_sock *s);
__poll_t stcp_sock_writable(struct stcp_sock *s);

/* -- listening (sock_listen.c, sock_backlog.c) ------------------------------ */

enum { STCP_LISTEN_RUN = 64 };	/* the most that one run of the work item takes or ends */

struct stcp_listener {
	struct stcp_sock *s;
	spinlock_t lock;		/* protects the rest but @work */
	struct list_head embryos, ready, dead;
	unsigned int embryo_count, ready_count;
	unsigned int limit;		/* of both together */
	unsigned long look;		/* no look at the embryos before that; jiffies */
	bool closed;
	const struct cred *cred;	/* of listen() */
	struct delayed_work work;	/* accepts from TCP, frees the dead */
};

int stcp_sock_listen(struct socket *sock, int backlog);
int stcp_listener_accept(struct socket *sock, struct socket *newsock, int flags);
void stcp_listener_shutdown(struct stcp_sock *s);
void stcp_listener_destroy(struct stcp_sock *s);
void stcp_listener_kick(struct stcp_sock *s);
void stcp_embryo_over(struct stcp_sock *s, bool good);

bool stcp_listener_queued(const struct stcp_listener *l);
bool stcp_listener_room(struct stcp_listener *l);
bool stcp_listener_admit(struct stcp_listener *l, struct stcp_sock *s);
unsigned long stcp_listener_make_room(struct stcp_listener *l);

/* -- options (sock_option.c) ------------------------------------------------ */

void stcp_sock_mirror_init(struct stcp_sock *s);
void stcp_sock_mirror(struct stcp_sock *s);
void stcp_sock_keepalive(struct sock *sk, int on);
int stcp_sock_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval,
			 unsigned int optlen);
int stcp_sock_getsockopt(struct sock *sk, int level, int optname,
			 char __user *optval, int __user *optlen);

#endif /* _STCP_SOCK_INTERNAL_H */
