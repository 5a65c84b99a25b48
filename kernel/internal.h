/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the module's files share: the objects, who owns them, and which lock
 * protects which field. Each file explains its own idea at its top.
 *
 * Objects
 *   leg        one socket with the "stcp" protocol on it (leg.c). Lives from
 *              setsockopt(TCP_ULP) to close().
 *   relay      one connection: two legs and two directions (relay.c). Owned by
 *              the wire leg; lives from STCP_RELAY to STCP_GIVE_BACK or the
 *              wire's close(). A system call that uses it holds a reference.
 *   direction  one flow of bytes in a relay: a place in its owner's line of those
 *              that have something to do, a cipher, at most one buffer (pump.c,
 *              transfer.c, seal.c, open.c).
 *
 * Locks, in the order in which they may nest (outer first)
 *   the socket lock          leg->role, hooking a leg, every call of TCP. Never two
 *                            sockets at once. System calls sleep for it; carriers
 *                            and work items only try (io.c).
 *   sk->sk_callback_lock     leg->relay as the socket callbacks see it.
 *   relay->lock              mode, cause and "settled" of a relay.
 *   stcp_line_lock           the lines, who has a turn, waits for its end (pump.c).
 *                            Nothing nests in it.
 * The mutex of the owners (owner.c) nests in nothing and nothing in it.
 * A direction's other fields belong to whoever has its turn, and it never has
 * two turns at once.
 */
#ifndef _STCP_INTERNAL_H
#define _STCP_INTERNAL_H

#include <linux/bvec.h>
#include <linux/completion.h>
#include <linux/list.h>
#include <linux/net.h>
#include <linux/skbuff.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <crypto/aead.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "stcp.h"
#include "compat.h"

#if BITS_PER_LONG != 64
#error "stcp keeps 64-bit counters without a lock and so wants a 64-bit machine"
#endif

struct stcp_relay;

/* How a relay stands; it only ever moves down this list (relay.c). */
enum stcp_mode {
	STCP_MODE_RUN,		/* bytes flow */
	STCP_MODE_RESET,	/* the plain leg is given up; the peer is told, then waited for */
	STCP_MODE_BREAK,	/* both legs are given up */
};

/* -- buffer.c -------------------------------------------------------------- */

#define STCP_BUFFER_PAGES	DIV_ROUND_UP(STCP_MAX_FRAME, PAGE_SIZE)

struct stcp_buffer {
	struct page *pages[STCP_BUFFER_PAGES];
	u32 count;
	u32 beyond;		/* how many of them are beyond the cgroup's limit */
	atomic_t *allowance;	/* counts those of an owner; NULL: there may be none */
};

int stcp_buffer_grow(struct stcp_buffer *b, u32 size, gfp_t gfp);
void stcp_buffer_free(struct stcp_buffer *b);
void stcp_buffer_write(struct stcp_buffer *b, u32 at, const void *from, u32 len);
void stcp_buffer_read(const struct stcp_buffer *b, u32 at, void *to, u32 len);
void stcp_buffer_copy(struct stcp_buffer *b, u32 at, const struct stcp_buffer *from,
		      u32 from_at, u32 len);
int stcp_buffer_write_skb(struct stcp_buffer *b, u32 at, const struct sk_buff *skb,
			  u32 offset, u32 len);
u32 stcp_buffer_bvec(const struct stcp_buffer *b, struct bio_vec *vec, u32 at,
		     u32 len);
void stcp_buffer_sg(const struct stcp_buffer *b, struct scatterlist *sg, u32 len);

/* -- memory.c -------------------------------------------------------------- */

struct stcp_payment {
	struct mem_cgroup *memcg;	/* the active one before */
	unsigned int flags;
};

bool stcp_pay_begin(struct stcp_payment *p, struct mem_cgroup *memcg, u32 size, bool beyond);
void stcp_pay_end(const struct stcp_payment *p);

/* -- cipher.c -------------------------------------------------------------- */

struct stcp_cipher {
	struct crypto_aead *tfm;
	struct aead_request *req;
	struct crypto_wait wait;
	u64 n;
	/* Not on the stack: the crypto API addresses them by page. */
	u8 nonce[STCP_NONCE_LEN];
	u8 scratch[STCP_KEY_LEN + STCP_TAG_LEN];	/* a rekey; else zero */
};

int stcp_cipher_init(struct stcp_cipher *c, const u8 *key, u64 n);
void stcp_cipher_destroy(struct stcp_cipher *c);
int stcp_cipher_seal(struct stcp_cipher *c, struct stcp_buffer *frame, u8 type,
		     u32 len);
int stcp_cipher_open(struct stcp_cipher *c, struct stcp_buffer *frame, u32 len);
enum stcp_end stcp_cipher_blame(int err);

/* -- owner.c --------------------------------------------------------------- */

struct stcp_owner {
	struct mem_cgroup *memcg;	/* pays; NULL without memory cgroups */
	kuid_t user;
	struct list_head all;		/* this and relays: under the owners' mutex */
	unsigned int relays;
	atomic_t beyond;		/* pages of buffers beyond the limit of @memcg */
	struct list_head line;		/* directions with something to do; under */
	struct list_head turn;		/* stcp_line_lock, as its place between owners */
};

kuid_t stcp_current_user(void);
struct stcp_owner *stcp_owner_get(void);
void stcp_owner_put(struct stcp_owner *owner);

/* -- leg.c ----------------------------------------------------------------- */

enum { STCP_IPV4, STCP_IPV6, STCP_FAMILIES };

enum stcp_role {
	STCP_ROLE_BARE,		/* the protocol is on, the socket is still user space's */
	STCP_ROLE_CLAIMED,	/* a handover is under way */
	STCP_ROLE_RELAYING,
};

struct stcp_leg {
	struct sock *sk;
	enum stcp_role role;
	bool wire;
	int family;			/* STCP_IPV4 or STCP_IPV6 */
	const struct proto *base;
	const struct proto_ops *base_ops;
	struct stcp_relay *relay;
	bool over;			/* had a relay, which has let go */
	bool wanted;			/* a carrier found it locked; under its spinlock */
	/* what stcp_leg_look() found last; under lock_sock */
	u32 acknowledged;
	bool eased;			/* TCP_USER_TIMEOUT is lifted ... */
	u32 user_timeout;		/* ... and was this */
	bool unanswered;		/* window probes stay without an answer ... */
	unsigned long unanswered_since;	/* ... since this look, in jiffies */
	/* what the handover has changed and STCP_GIVE_BACK restores; under lock_sock */
	gfp_t allocation;
	u32 notsent_lowat;
	/* what the socket called before us */
	void (*data_ready)(struct sock *sk);
	void (*write_space)(struct sock *sk);
	void (*state_change)(struct sock *sk);
	void (*error_report)(struct sock *sk);
};

/* While relaying TCP does not wait for memory. */
#define STCP_SK_ALLOCATION	(GFP_NOWAIT | __GFP_NOWARN)

extern struct tcp_ulp_ops stcp_ulp_ops;
/* What a leg calls before and after a relay, and while it relays, by family. */
extern struct proto stcp_bare_prots[];
extern struct proto_ops stcp_bare_ops[];
extern struct proto stcp_relay_prots[];
extern struct proto_ops stcp_relay_ops[];

void stcp_legs_init(void);
struct stcp_leg *stcp_leg_of(const struct sock *sk);
int stcp_leg_claim(struct sock *sk, struct stcp_leg **claimed);
void stcp_leg_unclaim(struct stcp_leg *leg);

/* -- hook.c ---------------------------------------------------------------- */

/*
 * Errors of TCP are reported in softirqs and by processes. Only the timestamp of sent bytes
 * may be reported in a hard interrupt, by some network drivers. Our locks must not be taken
 * there, and nothing of ours waits for it.
 */
static inline bool stcp_in_hard_interrupt(void)
{
	return in_hardirq() || irqs_disabled();
}

void stcp_release_cb(struct sock *sk);
void stcp_leg_hook(struct stcp_leg *leg, struct stcp_relay *relay);
void stcp_leg_unhook(struct stcp_leg *leg);
void stcp_leg_give_back(struct stcp_leg *leg);

/* -- lock.c ---------------------------------------------------------------- */

bool stcp_trylock(struct sock *sk, bool *wanted);
void stcp_unlock(struct sock *sk);

/* Where somebody holds it, stcp_release_cb() kicks the relay. */
static inline bool stcp_leg_trylock(struct stcp_leg *leg)
{
	return stcp_trylock(leg->sk, &leg->wanted);
}

/* -- send.c ---------------------------------------------------------------- */

int stcp_send_pieces(struct sock *sk, struct msghdr *msg, size_t len, bool more);

/* -- io.c ------------------------------------------------------------------ */

struct stcp_direction;

bool stcp_leg_readable(const struct stcp_leg *leg);
bool stcp_leg_broken(const struct stcp_leg *leg);
int stcp_leg_recv(struct stcp_leg *leg, struct stcp_direction *d);
int stcp_leg_send(struct stcp_leg *leg, struct stcp_direction *d, bool more);
bool stcp_peek(struct sock *sk, void *to, u32 len);
bool stcp_leg_shutdown(struct stcp_leg *leg);
bool stcp_leg_abort(struct stcp_leg *leg, int err);
void stcp_leg_tune(struct stcp_leg *leg, bool plain);
void stcp_leg_untune(struct stcp_leg *leg);
int stcp_leg_charge(struct stcp_leg *leg, u32 size);
void stcp_leg_uncharge(struct stcp_leg *leg, u32 size);

/* -- look.c ---------------------------------------------------------------- */

/* What a look at the send queue of a leg found. */
enum stcp_look {
	STCP_LOOK_AT_REST,	/* nothing waits */
	STCP_LOOK_WAITING,	/* bytes wait, or are under way */
	STCP_LOOK_DEAD,		/* the other end does not answer any more */
};

enum stcp_look stcp_leg_look(struct stcp_leg *leg);
void stcp_leg_ease(struct stcp_leg *leg, bool ease);

/* -- sockopt.c ------------------------------------------------------------- */

int stcp_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval,
		    unsigned int optlen);
int stcp_getsockopt(struct sock *sk, int level, int optname,
		    char __user *optval, int __user *optlen);

/* -- pump.c, transfer.c, seal.c, open.c ------------------------------------ */

/* What a step of a direction asks for. */
enum stcp_next {
	STCP_NEXT_MORE,		/* there may be more to do at once */
	STCP_NEXT_WAIT,		/* a socket callback will call again */
	STCP_NEXT_RETRY,	/* no memory: try again soon */
	STCP_NEXT_YIELD,	/* its turn is over; there may be more to do */
	STCP_NEXT_SETTLED,	/* nothing left to do in this mode */
};

struct stcp_direction {
	struct list_head line;		/* in its owner's; this and three more: stcp_line_lock */
	bool running;			/* has its turn */
	bool again;			/* was kicked during it */
	struct completion *awaited;	/* somebody waits for its end */
	struct delayed_work retry;	/* kicks */
	struct stcp_relay *relay;
	struct stcp_leg *from, *to;
	enum stcp_next (*step)(struct stcp_direction *d);
	struct stcp_cipher cipher;
	struct stcp_buffer buffer;	/* empty at rest */
	u32 out, out_end;		/* of the buffer: still to be sent */
	u32 in_end;			/* of the buffer: end of a frame that is not whole yet */
	u32 (*want)(const struct stcp_direction *d);	/* where in_end is to get to */
	u32 retry_delay;		/* jiffies; doubles while memory is short */
	u8 *queued;			/* came with the handover, read first */
	u32 queued_at, queued_end;
	u32 turn;			/* bytes received in this turn */
	u64 bytes;			/* application bytes that passed */
	bool fin;			/* its FIN has been sealed or opened */
	bool fin_passed;		/* ... and has reached the other leg */
	bool last_frame;		/* seal: RESET is in the buffer or gone */
	bool broken;			/* seal: the wire takes no more, for @error */
	int error;
	bool blocked;			/* waits for room in @to: readers need not call */
	bool beyond;			/* open: may send beyond the send buffer of @to */
	enum stcp_mode mode;		/* the relay's, when the last step began */
	bool follows;			/* open: another DATA frame is there already */
	bool settled;			/* in that mode; under relay->lock */
};

void stcp_direction_init(struct stcp_direction *d, struct stcp_relay *relay,
			 struct stcp_leg *from, struct stcp_leg *to,
			 enum stcp_next (*step)(struct stcp_direction *d),
			 u32 (*want)(const struct stcp_direction *d));
void stcp_direction_start(struct stcp_direction *d);
void stcp_direction_free(struct stcp_direction *d);
void stcp_direction_kick(struct stcp_direction *d);
void stcp_direction_cancel(struct stcp_direction *d);
int stcp_direction_recv(struct stcp_direction *d);
enum stcp_next stcp_recv_next(int err);
enum stcp_next stcp_direction_send(struct stcp_direction *d, int *error, bool more);
enum stcp_next stcp_seal_step(struct stcp_direction *d);
enum stcp_next stcp_open_step(struct stcp_direction *d);
u32 stcp_seal_want(const struct stcp_direction *d);
u32 stcp_open_want(const struct stcp_direction *d);
bool stcp_header_valid(const u8 *header, bool fin);
extern struct workqueue_struct *stcp_queue;
int stcp_pump_init(void);
void stcp_pump_exit(void);

/* -- relay.c --------------------------------------------------------------- */

/* What two crypto objects take, which the crypto API charges to nobody. */
#define STCP_CIPHERS_SIZE	(2 * 4096)

struct stcp_relay {
	struct stcp_leg *wire, *plain;
	struct file *plain_file;	/* pins the plain leg; NULL once let go */
	struct stcp_direction seal;	/* plain to wire */
	struct stcp_direction open;	/* wire to plain */
	struct stcp_owner *owner;
	struct delayed_work clock;	/* idle, half-close and linger deadlines */
	unsigned long last;		/* jiffies of the last progress */
	u32 idle_ms, half_close_ms, linger_ms;
	bool watching;			/* the clock looks after what was sent */
	bool stop;			/* turns and work items end at once */
	struct delayed_work finish;
	refcount_t refs;		/* the wire leg's, of system calls, of an abandoned one */
	bool keep;			/* STCP_RELAY_KEEP */

	spinlock_t lock;		/* protects the rest */
	enum stcp_mode mode;
	unsigned long deadline;		/* jiffies: when lingering ends */
	bool finishing;			/* both directions settled, or the owner closed */
	bool abandoned;			/* the plain leg's lock was taken at close() */
	bool ended;			/* the wire leg is all that is left */
	bool given_back;		/* ... and is being given back */
	enum stcp_end end;
	int error;
	u16 code;
	u16 text_len;
	u8 text[STCP_MAX_TEXT];
};

void stcp_finish(struct work_struct *work);
void stcp_relay_destroy(struct stcp_relay *relay);
void stcp_relay_leave_wire(struct stcp_relay *relay, bool give_back);
struct stcp_relay *stcp_relay_get(struct sock *sk);
void stcp_relay_put(struct stcp_relay *relay);
void stcp_relay_kick(struct stcp_relay *relay);
void stcp_relay_progress(struct stcp_relay *relay);
bool stcp_relay_reset(struct stcp_relay *relay, enum stcp_end end, int error,
		      u16 code, const void *text, u16 text_len);
bool stcp_relay_break(struct stcp_relay *relay, enum stcp_end end, int error);
bool stcp_relay_peer_reset(struct stcp_relay *relay, u16 code, const void *text,
			   u16 text_len);
void stcp_relay_settle(struct stcp_direction *d);
void stcp_relay_status(struct stcp_relay *relay, struct stcp_status *status);

/* -- handover.c ------------------------------------------------------------ */

int stcp_relay_create(struct sock *wire, const struct stcp_relay_args *args,
		      struct socket *plain, u8 *wire_bytes, u8 *plain_bytes);

/* -- keep.c ---------------------------------------------------------------- */

bool stcp_wire_over(const struct stcp_direction *open);
bool stcp_may_go_beyond(const struct stcp_direction *d);
bool stcp_fin_waits(const struct stcp_direction *open);
int stcp_relay_give_back(struct sock *sk);

/* -- clock.c --------------------------------------------------------------- */

void stcp_clock(struct work_struct *work);
void stcp_relay_watch(struct stcp_relay *relay);
void stcp_relay_half_closed(struct stcp_relay *relay);

/* -- stat.c ---------------------------------------------------------------- */

enum stcp_stat {
	STCP_STAT_RELAYS,
	STCP_STAT_RELAYS_LIVE,
	STCP_STAT_RELAYS_REFUSED,
	STCP_STAT_BYTES_TO_WIRE,
	STCP_STAT_BYTES_TO_PLAIN,
	STCP_STAT_FRAMES_SEALED,
	STCP_STAT_FRAMES_OPENED,
	STCP_STAT_BUFFER_FAILURES,
	STCP_STAT_LEGS_GIVEN_BACK,
	STCP_STAT_SESSIONS,
	STCP_STAT_SESSIONS_LIVE,
	STCP_STAT_HANDSHAKES_FAILED,
	STCP_STAT_END,		/* one for each enum stcp_end; 0 stands for closed by the owner */
	STCP_STAT_COUNT = STCP_STAT_END + STCP_END_INTERNAL_ERROR + 1,
};

void stcp_stat_add(struct net *net, enum stcp_stat stat, s64 delta);
int stcp_stat_init(void);
void stcp_stat_exit(void);

#endif /* _STCP_INTERNAL_H */
