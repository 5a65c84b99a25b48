/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * STCP/1: every number of the wire that the kernel speaks, and the interface
 * of stcp.ko to user space. This is the one C description of both; a test
 * compares it with stcp_proxy/protocol/wire.py and stcp_proxy/relay/kernel_abi.py.
 *
 * Section numbers are those of PROTOCOL.md. docs/KERNEL.md tells the interface
 * as a story.
 */
#ifndef _STCP_H
#define _STCP_H

#include <linux/types.h>

/* -- section 2: frames ---------------------------------------------------- */

#define STCP_KEY_LEN		32
#define STCP_TAG_LEN		16
#define STCP_NONCE_LEN		12

/* type (u8) | 0 (u8) | length (u16, big-endian) of ciphertext and tag */
#define STCP_HEADER_LEN		4
#define STCP_MAX_FRAME		65536
#define STCP_MIN_LENGTH		STCP_TAG_LEN
#define STCP_MAX_LENGTH		(STCP_MAX_FRAME - STCP_HEADER_LEN)
#define STCP_FRAME_OVERHEAD	(STCP_HEADER_LEN + STCP_TAG_LEN)
#define STCP_MAX_PLAINTEXT	(STCP_MAX_FRAME - STCP_FRAME_OVERHEAD)

/* Before using n where n > 0 and n mod this = 0, the key is replaced. */
#define STCP_REKEY_INTERVAL	(1ULL << 20)
/* Reserved for the rekey: no frame may use it. */
#define STCP_REKEY_NONCE	(~0ULL)

/* OPEN, ACCEPT and REJECT belong to user space: out of place here. */
enum stcp_frame_type {
	STCP_FRAME_DATA		= 0,
	STCP_FRAME_FIN		= 1,
	STCP_FRAME_RESET	= 2,
	STCP_FRAME_OPEN		= 3,
	STCP_FRAME_ACCEPT	= 4,
	STCP_FRAME_REJECT	= 5,
};

/* RESET: code (u16, big-endian) | text (UTF-8) */
#define STCP_CODE_LEN		2
#define STCP_MAX_TEXT		256

enum stcp_code {
	STCP_CODE_DENIED		= 1,
	STCP_CODE_UNKNOWN_SERVICE	= 2,
	STCP_CODE_TARGET_REFUSED	= 3,
	STCP_CODE_TARGET_TIMED_OUT	= 4,
	STCP_CODE_TARGET_UNREACHABLE	= 5,
	STCP_CODE_OVER_LIMIT		= 6,
	STCP_CODE_SHUTTING_DOWN		= 7,
	STCP_CODE_PLAIN_RESET		= 8,
	STCP_CODE_IDLE_TIMEOUT		= 9,
	STCP_CODE_PROTOCOL_ERROR	= 10,
	STCP_CODE_KEY_REVOKED		= 11,
	STCP_CODE_INTERNAL_ERROR	= 12,
};

/* -- the interface -------------------------------------------------------- */

/* setsockopt(fd, SOL_TCP, TCP_ULP, STCP_ULP_NAME): on both legs, first. */
#define STCP_ULP_NAME		"stcp"

/* Level of the options below; options are those of the wire leg. */
#define SOL_STCP		21332

/* Any change of the structs below is a new number. */
#define STCP_INTERFACE		1

#define STCP_RELAY		1	/* set: struct stcp_relay_args */
#define STCP_ABORT		2	/* set: struct stcp_abort_args */
#define STCP_STATUS		3	/* get: struct stcp_status */
#define STCP_GIVE_BACK		4	/* set: no argument; after @kept of the status */

/* Most bytes per direction that a handover may bring along. */
#define STCP_MAX_QUEUED		(256 * 1024)

/*
 * One direction's cipher state at a frame boundary. @key is the key in force
 * for the frame before @counter: where @counter is a positive multiple of
 * STCP_REKEY_INTERVAL, the rekey before it is still to be made.
 */
struct stcp_direction_args {
	__u64	counter;
	__u8	key[STCP_KEY_LEN];
};

/*
 * Flag of STCP_RELAY: after both FINs leave the wire leg as it is, for the next
 * connection (section 7). STCP_GIVE_BACK makes it user space's again. What
 * arrives behind the peer's FIN stays in its receive queue.
 */
#define STCP_RELAY_KEEP		1

/*
 * STCP_RELAY: carry the connection from here on. A deadline of 0 is none.
 * Refused as a whole or taken as a whole.
 */
struct stcp_relay_args {
	__u16	interface;	/* STCP_INTERFACE */
	__u16	size;		/* of this struct */
	__s32	plain_fd;	/* may be closed once this returned */
	struct stcp_direction_args	send;		/* plain to wire */
	struct stcp_direction_args	receive;	/* wire to plain */
	__u64	wire_bytes;	/* user pointer: read from the wire already */
	__u64	plain_bytes;	/* user pointer: read from the plain leg already */
	__u32	wire_len;
	__u32	plain_len;
	__u32	idle_ms;	/* no byte in either direction */
	__u32	half_close_ms;	/* the same, once one direction has ended */
	__u32	linger_ms;	/* how long the wire is kept after a RESET */
	__u32	flags;		/* STCP_RELAY_KEEP or 0 */
};

/* STCP_ABORT: RESET to the peer, a TCP RST to the application. */
struct stcp_abort_args {
	__u16	interface;	/* STCP_INTERFACE */
	__u16	code;		/* enum stcp_code */
	__u32	text_len;
	__u8	text[STCP_MAX_TEXT];
};

/* Why a connection ended; 0 while it lives. Named as EndReason in engine.py. */
enum stcp_end {
	STCP_END_NONE			= 0,
	STCP_END_FINISHED		= 1,
	STCP_END_PLAIN_RESET		= 2,
	STCP_END_PEER_RESET		= 3,
	STCP_END_TRUNCATED		= 4,
	STCP_END_BAD_FRAME		= 5,
	STCP_END_IDLE_TIMEOUT		= 6,
	STCP_END_HALF_CLOSE_TIMEOUT	= 7,
	STCP_END_ABORTED		= 8,
	STCP_END_INTERNAL_ERROR		= 9,
};

/*
 * STCP_STATUS. The wire descriptor polls EPOLLHUP, and nothing before, once
 * @ended is set; @end is set earlier, when the cause was seen.
 */
struct stcp_status {
	__u16	interface;	/* STCP_INTERFACE */
	__u8	ended;		/* the module has let go of both legs */
	__u8	end;		/* enum stcp_end */
	__s32	error;		/* errno of the cause, 0 or negative */
	__u64	bytes_to_wire;	/* application bytes sealed */
	__u64	bytes_to_plain;	/* application bytes the plain leg took */
	__u64	send_counter;	/* n of the next frame */
	__u64	receive_counter;
	__u32	buffered;	/* bytes of buffer held right now */
	__u16	code;		/* of the RESET sent or received, else 0 */
	__u16	text_len;
	__u8	text[STCP_MAX_TEXT];
	__u8	kept;		/* the wire leg can be given back */
	__u8	reserved[7];	/* 0 */
};

/* -- sockets of the protocol: socket(AF_INET, SOCK_STREAM, STCP_PROTOCOL) --- */

/* Experimental by RFC 3692; the module parameter "protocol" replaces it. */
#define STCP_PROTOCOL		253

/* Options of such a socket at SOL_STCP, besides STCP_STATUS. */
#define STCP_PEER		16	/* get: the authenticated name of the peer */
#define STCP_CHANNEL_ID		17	/* get: STCP_CHANNEL_ID_LEN bytes */
#define STCP_SERVICE		18	/* set, get: name, before connect() */
#define STCP_IDENTITY		19	/* set, get: name, before connect() or listen() */

#define STCP_MAX_NAME		64	/* of a service or an identity, without a NUL */
#define STCP_MAX_PEER		255
#define STCP_CHANNEL_ID_LEN	32

/*
 * The agent makes the handshake of these sockets in user space. It speaks
 * generic netlink; enum stcp_command says who sends what.
 */
#define STCP_GENL_NAME		"stcp"
#define STCP_GENL_VERSION	1

/* Any incompatible change of the commands and attributes is a new number. */
#define STCP_AGENT_INTERFACE	2

/* Most bytes of the wire that DONE may bring along. */
#define STCP_MAX_WIRE_BYTES	(63 * 1024)

enum stcp_command {
	STCP_CMD_READY		= 1,	/* to the agent: a handshake is pending */
	STCP_CMD_ACCEPT		= 2,	/* take the next pending handshake */
	STCP_CMD_DONE		= 3,	/* end a handshake, once */
	STCP_CMD_REGISTER	= 4,	/* become the agent of the namespace */
};

enum stcp_attr {
	STCP_A_ID		= 1,	/* u64: one handshake; never used again */
	STCP_A_FD		= 2,	/* s32: the TCP connection, in the agent */
	STCP_A_ROLE		= 3,	/* u32: enum stcp_socket_role */
	STCP_A_TIMEOUT_MS	= 4,	/* u32: what is left of its time */
	STCP_A_UID		= 5,	/* u32: owner of the socket, as the agent sees it */
	STCP_A_IDENTITY		= 6,	/* string: STCP_IDENTITY, or absent */
	STCP_A_SERVICE		= 7,	/* string: STCP_SERVICE, or absent */
	STCP_A_ERROR		= 8,	/* s32: 0 or a negative errno */
	STCP_A_SEND_KEY		= 9,	/* STCP_KEY_LEN bytes */
	STCP_A_SEND_COUNTER	= 10,	/* u64 */
	STCP_A_RECEIVE_KEY	= 11,	/* STCP_KEY_LEN bytes */
	STCP_A_RECEIVE_COUNTER	= 12,	/* u64 */
	STCP_A_WIRE_BYTES	= 13,	/* bytes read beyond the handshake */
	STCP_A_PEER		= 14,	/* string: authenticated name of the peer */
	STCP_A_CHANNEL_ID	= 15,	/* STCP_CHANNEL_ID_LEN bytes */
	STCP_A_INTERFACE	= 16,	/* u32: STCP_AGENT_INTERFACE */
	STCP_A_PLACES		= 17,	/* u32: places of the agent; absent: no bound */
};

enum stcp_socket_role {
	STCP_INITIATOR		= 0,	/* connect() */
	STCP_RESPONDER		= 1,	/* a connection to a listener */
};

#endif /* _STCP_H */
