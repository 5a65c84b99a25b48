/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A session: what the handshake of a socket of the protocol has made, from DONE to
 * close(). sock_internal.h has the locks.
 */
#ifndef _STCP_SOCK_SESSION_H
#define _STCP_SOCK_SESSION_H

#include "internal.h"

struct stcp_sock;

/* Text of DATA frames that were opened, and how much of it was read (sock_text.c). */
struct stcp_text {
	struct list_head list;
	struct stcp_buffer buffer;
	u32 at, end;
};

/*
 * Under the outer socket lock. @queued, @in_end and @header are written under the inner
 * lock too, and read under either; @ends is written under the inner lock. poll() reads
 * them without a lock.
 */
struct stcp_session {
	struct stcp_cipher send, receive;

	/* receiving: bytes from the agent, then from the inner socket */
	u8 *queued;
	u32 queued_at, queued_end;
	bool queued_whole;		/* ... and they hold a whole frame */
	struct stcp_text *next;		/* the frame that is being received */
	u32 in_end;			/* bytes of it */
	u8 header[STCP_HEADER_LEN];	/* the first of them */
	bool ends;			/* by its header the frame is no text */
	struct list_head texts;
	u32 text_len;			/* unread bytes in them */
	u32 held;			/* bytes of memory in them */
	bool eof;			/* FIN was received */

	/* sending */
	struct stcp_buffer out;		/* TCP had no memory for the rest of it */
	u32 out_at, out_end;
	bool fin;			/* FIN was sealed */
	bool broken;			/* TCP takes nothing any more */

	bool locked;			/* close() holds the inner lock already */

	/* how it ended */
	u32 reported;			/* ... has been in sk_err, once and for all */
	int fatal;			/* 0, or the errno that recv() repeats */
	enum stcp_end end;
	int error;
	u16 code, reason_len;
	u8 reason[STCP_MAX_TEXT];
	u64 sent, received;		/* bytes of text */

	bool charged;			/* STCP_CIPHERS_SIZE, to the inner socket */
	u16 peer_len;
	char peer[STCP_MAX_PEER];
	u8 channel_id[STCP_CHANNEL_ID_LEN];
};

/*
 * Put the end of the connection into sk_err, for SO_ERROR and poll(), unless it has been
 * there. The first who finds the end does that: a system call, or a callback of TCP.
 */
static inline void stcp_session_report(struct stcp_session *e, struct sock *sk, int err)
{
	if (!xchg(&e->reported, 1))
		WRITE_ONCE(sk->sk_err, err);
}

/* The inner socket lock, unless close() holds it. */
static inline void stcp_inner_lock(const struct stcp_session *e, struct sock *isk)
{
	if (!e->locked)
		lock_sock(isk);
}

static inline void stcp_inner_unlock(const struct stcp_session *e, struct sock *isk)
{
	if (!e->locked)
		release_sock(isk);
}

/* A kernel thread that closes files for everybody does not wait for memory. */
static inline gfp_t stcp_gfp(void)
{
	return current->flags & PF_KTHREAD ? GFP_NOWAIT : GFP_KERNEL;
}

/* How long a frame is; no more than its header is wanted of one that is not allowed. */
static inline u32 stcp_frame_size(const struct stcp_session *e, const u8 *header)
{
	return stcp_header_valid(header, e->eof) ?
	       STCP_HEADER_LEN + get_unaligned_be16(header + 2) : STCP_HEADER_LEN;
}

/* Is the frame no text, but FIN, RESET, or one that is not allowed? */
static inline bool stcp_frame_ends(const struct stcp_session *e, const u8 *header)
{
	return header[0] != STCP_FRAME_DATA || !stcp_header_valid(header, e->eof);
}

/* What DONE brings. */
struct stcp_session_args {
	const u8 *send_key, *receive_key;
	u64 send_counter, receive_counter;
	const u8 *wire_bytes;
	u32 wire_len;
	const char *peer;
	u32 peer_len;
	const u8 *channel_id;
};

struct stcp_session *stcp_session_create(const struct stcp_session_args *args);
void stcp_session_free(struct stcp_session *e);
int stcp_session_grow(struct stcp_session *e, u32 size);
void stcp_session_took(struct stcp_session *e, u32 n);
int stcp_session_take_queued(struct stcp_session *e);
int stcp_session_next(struct stcp_session *e);
u32 stcp_session_buffered(const struct stcp_session *e);
bool stcp_session_end(struct stcp_sock *s, enum stcp_end end, int error, int fatal);
void stcp_session_abort(struct stcp_sock *s, enum stcp_end end, int error);

/* -- texts (sock_text.c) ---------------------------------------------------- */

void stcp_text_add(struct stcp_session *e, u32 len);
void stcp_text_free(struct stcp_text *text);
bool stcp_texts_full(const struct stcp_session *e, const struct sock *isk);
int stcp_texts_read(struct stcp_session *e, u32 skip, u32 len, struct msghdr *msg,
		    int flags);

#endif /* _STCP_SOCK_SESSION_H */
