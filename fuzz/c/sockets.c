/* Fuzzer of the receiving side of sockets of the protocol: the frame parser, texts, peeks, ends, poll().
 *
 * sock_recv.c, sock_session.c, sock_stream.c and sock_text.c run in user space, in one thread, over the small TCP of kernel_stand_in.c. The input is a
 * list of steps: the peer's bytes and frames arrive in pieces, memory is refused, the application reads, peeks or asks poll(). The harness
 * holds the peer's keys, so hostile frames are authentic where the input says so.
 *
 * Invariants, checked after each step or at the end:
 * - The application gets a prefix of the text of authentic DATA frames, and EOF only behind an authentic FIN and all text before it.
 * - A peek shows what the next read brings.
 * - An end that is not EOF is an error, and the same one ever after.
 * - What poll() does not announce cannot be read, or is less than SO_RCVLOWAT.
 * - A read that leaves a frame, although it returns less than was asked for, wakes poll().
 * - Peeks make texts hold a receive buffer and one frame at most, whatever frames the peer sends.
 * - With all memory everything that has arrived can be read.
 * - After the end no page and no object is left.
 */
#include "kernel_harness.h"
#include "sock_internal.h"

enum { READ_SIZE = 200000 };

static struct stcp_sock outer;
static u8 read_bytes[READ_SIZE];
static u32 read_end; /* of the call under way */
static u32 got;      /* bytes that the application has read */
static int ended;    /* 0, 1 after EOF, or the error of every further call */
static bool faults;  /* whether the application's memory may be missing */
static bool woken;   /* whether a call has woken poll() */

void stand_in_between_turns(void)
{
}

size_t copy_to_iter(const void *from, size_t size, struct iov_iter *to)
{
	size_t part = faults && input_refuses() ? size / 2 : size;

	CHECK(size <= to->count && read_end + part <= READ_SIZE);
	memcpy(read_bytes + read_end, from, part);
	read_end += (u32)part;
	to->count -= part;
	return part;
}

void iov_iter_revert(struct iov_iter *to, size_t size)
{
	CHECK(size <= read_end);
	read_end -= (u32)size;
	to->count += size;
}

/* -- what sock_inner.c and sock_option.c have ---- */

void stcp_inner_abort(struct stcp_sock *s)
{
	tcp_abort(s->inner->sk, ECONNRESET);
}

void stcp_wake(struct sock *sk, __poll_t events)
{
	(void)sk;
	woken |= events & EPOLLIN;
}

void stcp_sock_mirror(struct stcp_sock *s)
{
	(void)s;
}

static void called_nobody(struct sock *sk)
{
	(void)sk;
}

/* -- one run ---- */

static bool start(void)
{
	static const u64 counters[] = { 0, 1, STCP_REKEY_INTERVAL - 2, STCP_REKEY_INTERVAL, STCP_REKEY_NONCE - 2, STCP_REKEY_NONCE - 1 };
	static const u32 rooms[] = { 1 << 18, 65536, 20000, 4096, 300, 37 };
	u8 send_key[STCP_KEY_LEN], receive_key[STCP_KEY_LEN], channel_id[STCP_CHANNEL_ID_LEN] = { 0 }, how = byte();
	struct stcp_session_args args = { .send_key = send_key, .receive_key = receive_key, .channel_id = channel_id };

	memset(send_key, 7, sizeof(send_key));
	memset(receive_key, 8, sizeof(receive_key));
	stream_at = stream_end = expected_end = got = read_end = refusals = 0;
	expected_fin = said_reset = spoiled = broken_leg = faults = false;
	ended = 0;
	memcpy(peer_seals.key, receive_key, sizeof(receive_key));
	args.receive_counter = peer_seals.n = counters[how % 6];
	open_leg(&wire, &wire_socket, &wire_file, &wire_leg, wire_in, wire_out, rooms[byte() % 6]);
	open_leg(&plain, &plain_socket, &plain_file, &plain_leg, plain_in, plain_out, 4096); /* events for it mean nothing here */
	wire.sk_rcvbuf = how & 64 ? 2 * STCP_MAX_FRAME : 8 * STCP_MAX_FRAME;
	memset(&outer, 0, sizeof(outer));
	outer.inner = &wire_socket;
	stcp_outer(&outer)->sk_state = TCP_ESTABLISHED;
	stcp_outer(&outer)->sk_prot = &tcp_prot;
	stcp_outer(&outer)->sk_state_change = called_nobody;
	stcp_outer(&outer)->sk_rcvlowat = 1;
	for (u32 frames = how / 6 % 4; frames; frames--)
		peer_sends_frame();
	if (how & 128) { /* bytes that the agent has read */
		args.wire_bytes = stream;
		args.wire_len = stream_at = min(amount(), min(stream_end, (u32)STCP_MAX_WIRE_BYTES));
	}
	stand_in_callers_refused = true;
	outer.session = stcp_session_create(&args);
	return !IS_ERR(outer.session);
}

static int receive(u32 size, int flags)
{
	struct msghdr msg = { .msg_iter = { .count = size } };

	read_end = 0;
	return stcp_sock_recv(stcp_outer(&outer), &msg, size, flags | MSG_DONTWAIT);
}

static void check_text(u32 size, int flags)
{
	CHECK(got + size <= expected_end);
	if (!(flags & MSG_TRUNC))
		CHECK(read_end >= size && !memcmp(read_bytes, expected + got, size));
	if (!(flags & MSG_PEEK))
		got += size;
}

static void check_held(void)
{
	const struct stcp_session *e = outer.session;
	u32 held = 0, text = 0, frame = sizeof(struct stcp_text) + STCP_BUFFER_PAGES * PAGE_SIZE;
	struct stcp_text *each, *after;

	list_for_each_entry_safe(each, after, &e->texts, list)
	{
		CHECK(each->at < each->end && each->end <= each->buffer.count * PAGE_SIZE);
		held += sizeof(*each) + each->buffer.count * PAGE_SIZE;
		text += each->end - each->at;
	}
	CHECK(e->held == held && e->text_len == text);
	CHECK(held <= min_t(u32, STCP_MAX_QUEUED, wire.sk_rcvbuf) + frame);
}

/* Edges of epoll: a program takes a short read for an empty socket. */
static void check_left(void)
{
	if (!woken && !faults && !outer.session->fatal)
		CHECK(!outer.session->queued && !stcp_inner_ready(&wire));
}

/* One call of recv(), and what it may return. */
static int call(u32 size, int flags)
{
	bool refusing = refusals;
	u32 before = got;
	int n;

	woken = false;
	n = receive(size, flags);
	if (n > 0) {
		CHECK((u32)n <= size && !ended);
		check_text((u32)n, flags);
		if ((u32)n < size && !(flags & MSG_PEEK))
			check_left();
	} else if (!n) {
		CHECK(!size || (expected_fin && got == expected_end && ended >= 0));
		ended = size ? 1 : ended;
	} else if (n == -EAGAIN) {
		CHECK(!ended && size);
	} else if (n == -ENOMEM || n == -EFAULT) {
		CHECK(refusing);
	} else {
		CHECK(n == -ECONNRESET && (spoiled || said_reset || broken_leg || wire.sk_shutdown & RCV_SHUTDOWN));
		CHECK(ended == n || ended >= 0); /* RESET may come behind FIN */
		ended = n;
	}
	if (flags & MSG_PEEK)
		CHECK(got == before);
	check_held();
	return n;
}

static void ask_poll(void)
{
	__poll_t events = stcp_sock_readable(&outer);
	u32 lowat = (u32)max(stcp_outer(&outer)->sk_rcvlowat, 1);

	refusals = 0;
	if (!events) {
		CHECK(lowat == 1 || !tcp_epollin_ready(&wire, INT_MAX) || !stcp_inner_ready(&wire));
		CHECK(stcp_sock_look(&outer, lowat) < lowat);
		check_held();
	}
	if (!events && lowat == 1)
		CHECK(call(1, MSG_PEEK) == -EAGAIN);
	if (ended)
		CHECK(events & EPOLLIN);
}

static void step(void)
{
	u8 op = byte();

	switch (op & 192) {
	case 0:
		return network_step(op & ~4); /* nobody holds a lock between two system calls */
	case 64:
		call(amount(), (op & 1 ? MSG_PEEK : 0) | (op & 2 ? MSG_TRUNC : 0) | (op & 4 ? MSG_WAITALL : 0));
		return;
	case 128:
		refusals = byte();
		faults = op & 1;
		return;
	default:
		if (op & 1)
			return ask_poll();
		stcp_outer(&outer)->sk_rcvlowat = op & 2 ? (int)amount() : 1;
	}
}

/* With all memory, everything that has arrived can be read. */
static void finish(void)
{
	int n;

	refusals = 0;
	stcp_outer(&outer)->sk_rcvlowat = 1;
	arrive(&wire, stream_end - stream_at);
	for (int i = 0; i < 100000; i++) {
		n = call(READ_SIZE, 0);
		if (n > 0)
			continue;
		if (n != -EAGAIN)
			break;
		if (stcp_sock_readable(&outer))
			continue; /* frames without text */
		if (wire.sk_shutdown & RCV_SHUTDOWN)
			break;
		fin_arrives(&wire);
	}
	CHECK(ended);
	if (!spoiled && !broken_leg && stream_at == stream_end && peer_seals.n != STCP_REKEY_NONCE) {
		CHECK(got == expected_end);
		CHECK((ended == 1) == (expected_fin && !said_reset) || (ended == 1 && said_reset));
	}
	CHECK(call(1, 0) == (ended == 1 ? 0 : ended));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	int objects = stand_in_objects;

	take_input(data, size);
	if (!start())
		return 0;
	while (input_left)
		step();
	if (size & 1)
		finish();
	stcp_session_free(outer.session);
	CHECK(!stand_in_pages && stand_in_objects == objects);
	return 0;
}
