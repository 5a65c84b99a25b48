/* The peer of the fuzzer of the kernel module, its keys, and events of the network. */
#include "kernel_harness.h"

struct toy_keys peer_seals, peer_opens;
u8 stream[IN_SIZE], expected[IN_SIZE];
u32 stream_at, stream_end, expected_end, over_at;
bool expected_fin, said_reset, spoiled, broken_leg, within_turn;

static void spoil(void)
{
	spoiled = true;
}

/* What an authentic frame means to the receiver. */
static void expect(u8 type, u8 zero, const u8 *text, u32 len)
{
	if (spoiled || said_reset)
		return;
	if (zero || len > STCP_MAX_PLAINTEXT || type > STCP_FRAME_RESET || (expected_fin && type != STCP_FRAME_RESET) ||
	    (type == STCP_FRAME_FIN && len) || (type == STCP_FRAME_RESET && (len < STCP_CODE_LEN || len > STCP_CODE_LEN + STCP_MAX_TEXT))) {
		spoil();
	} else if (type == STCP_FRAME_DATA) {
		memcpy(expected + expected_end, text, len);
		expected_end += len;
	} else if (type == STCP_FRAME_FIN) {
		expected_fin = true;
		over_at = stream_end + STCP_FRAME_OVERHEAD;
	} else {
		said_reset = true;
	}
}

void peer_sends_frame(void)
{
	u8 kind = byte(), type = kind & 7, zero = kind & 64 ? byte() : 0;
	u32 len = type == STCP_FRAME_FIN && !(kind & 8) ? 0 : kind & 16 ? 0 : amount();
	u8 *frame = stream + stream_end;
	const u8 *text = text_bytes + (expected_end + 31 * (u32)peer_seals.n) % IN_SIZE;

	if (type == STCP_FRAME_RESET)
		len %= 300;
	if (stream_end + STCP_FRAME_OVERHEAD + len > IN_SIZE || expected_end + len > IN_SIZE)
		return;
	memcpy(frame + STCP_HEADER_LEN, text, len);
	if (!toy_seal_frame(&peer_seals, frame, type, zero, len))
		return;
	if (kind & 128) { /* changed, cut, repeated or skipped on its way */
		u8 fault = byte();
		u32 size = STCP_FRAME_OVERHEAD + len, at = amount() % size;

		if (fault & 1)
			return spoil();
		if (fault & 2)
			len = at >= STCP_FRAME_OVERHEAD ? at - STCP_FRAME_OVERHEAD : 0;
		/* a byte of what is left: what follows could be just the bytes that were cut */
		frame[at % (STCP_FRAME_OVERHEAD + len)] ^= (u8)(fault | 4);
		spoil();
	}
	expect(type, zero, text, len);
	stream_end += STCP_FRAME_OVERHEAD + len;
}

static void peer_sends_bytes(void)
{
	u32 len = byte() % 32;

	if (!len || stream_end + len > IN_SIZE)
		return;
	for (u32 i = 0; i < len; i++)
		stream[stream_end++] = byte();
	spoil();
}

/* -- events of the network ---- */

void arrive(struct sock *sk, u32 len)
{
	if (!len || sk->in_end + len > IN_SIZE || sk->segment_end == 64 || sk->sk_shutdown & RCV_SHUTDOWN || sk->sk_state == TCP_CLOSE)
		return;
	if (sk == &wire) {
		len = min(len, stream_end - stream_at);
		if (!len)
			return;
		memcpy(wire_in + wire.in_end, stream + stream_at, len);
		stream_at += len;
	} else {
		memcpy(plain_in + plain.in_end, text_bytes + plain.in_end, len);
	}
	sk->in_end += len;
	sk->segments[sk->segment_end++] = sk->in_end;
	sk->sk_receive_queue.qlen = 1;
	sk->sk_data_ready(sk);
}

void fin_arrives(struct sock *sk)
{
	if (sk->sk_state == TCP_CLOSE || sk->sk_shutdown & RCV_SHUTDOWN)
		return;
	sk->sk_shutdown |= RCV_SHUTDOWN;
	sk->flags |= SOCK_DONE;
	sk->sk_state_change(sk);
}

static void rst_arrives(struct sock *sk)
{
	if (sk->sk_state == TCP_CLOSE)
		return;
	broken_leg = true;
	sk->sk_err = ECONNRESET;
	sk->sk_shutdown = SHUTDOWN_MASK;
	sk->sk_state = TCP_CLOSE;
	sk->sk_error_report(sk);
	sk->sk_state_change(sk);
}

void give_room(struct sock *sk, u32 len)
{
	sk->room += min(len, sk->size - sk->room);
	sk->snd_wnd = sk->room;
	sk->snd_una = sk->write_seq - (sk->size - sk->room);
	if (sk_stream_is_writeable(sk) && sk->sk_socket->flags & 1ul << SOCK_NOSPACE)
		sk->sk_write_space(sk);
}

void hold(struct sock *sk, bool held)
{
	if (held && !sk->sk_lock.owned)
		lock_sock(sk);
	else if (!held && sk->sk_lock.owned)
		release_sock(sk);
}

void network_step(u8 step)
{
	struct sock *sk = step & 16 ? &wire : &plain;

	switch (step & 7) {
	case 0:
	case 1:
		return arrive(sk, amount());
	case 2:
		return give_room(sk, amount());
	case 3:
		return peer_sends_frame();
	case 4:
		if (!within_turn) /* a turn that is under way may hold it */
			hold(sk, step & 32);
		return;
	case 5:
		return step & 32 ? peer_sends_frame() : peer_sends_bytes();
	case 6:
		return fin_arrives(sk);
	default:
		return step & 32 ? rst_arrives(sk) : give_room(sk, amount());
	}
}
