/* Fuzzer of the kernel module's relay: frame parser, sealing, modes, turns, deadlines, wake-ups.
 *
 * The files of kernel/ run in user space, in one thread, between two legs of a small TCP (kernel_stand_in.c). The input is a list of
 * steps: bytes and frames arrive in pieces, the sockets have room or not, memory is refused, somebody holds a socket, legs end or break,
 * time passes, the owner aborts or closes. The harness holds the peer's keys, so hostile frames are authentic where the input says so.
 *
 * Invariants, checked after each step or at the end:
 * - The application gets a prefix of the text of authentic DATA frames, and EOF only behind an authentic FIN and all text before it.
 * - The wire carries frames that the peer can open, whose text is a prefix of what the application wrote; FIN only after its EOF.
 * - A direction holds at most the pages of one frame, and none at rest.
 * - No wake-up is lost: when nothing hinders it, everything that has arrived passes, and after both ends the relay ends.
 * - After the end no object, page, work item or reference to a file is left.
 */
#include "kernel_harness.h"

static struct stcp_relay *relay;
static u32 came_before; /* bytes of the stream that came with the handover */
static u32 out_checked, frames_at, text_passed;
static bool fin_frame, reset_frame;
static bool gave_up, deadlines;

static bool interleave;

void stand_in_between_turns(void)
{
	if (!interleave || !input_left)
		return;
	within_turn = true;
	network_step(byte());
	within_turn = false;
}

/* -- checks ---- */

static void check_what_the_application_got(void)
{
	CHECK(plain.out_end <= expected_end);
	CHECK(!memcmp(plain_out + out_checked, expected + out_checked, plain.out_end - out_checked));
	out_checked = plain.out_end;
	if (plain.fin_sent)
		CHECK(expected_fin && plain.out_end == expected_end);
}

static void check_what_the_peer_got(void)
{
	static u8 frame[STCP_MAX_FRAME];

	while (wire.out_end - frames_at >= STCP_HEADER_LEN) {
		u32 length = get_unaligned_be16(wire_out + frames_at + 2), size = STCP_HEADER_LEN + length, len;

		CHECK(length >= STCP_TAG_LEN && length <= STCP_MAX_LENGTH);
		if (wire.out_end - frames_at < size)
			break;
		len = length - STCP_TAG_LEN;
		memcpy(frame, wire_out + frames_at, size);
		CHECK(!reset_frame && toy_open_frame(&peer_opens, frame, len));
		switch (frame[0]) {
		case STCP_FRAME_DATA:
			CHECK(!fin_frame && len);
			CHECK(text_passed + len <= plain.in_end && !memcmp(frame + STCP_HEADER_LEN, text_bytes + text_passed, len));
			text_passed += len;
			break;
		case STCP_FRAME_FIN:
			CHECK(!fin_frame && !len && plain.flags & SOCK_DONE && text_passed == plain.in_end);
			fin_frame = true;
			break;
		default:
			CHECK(frame[0] == STCP_FRAME_RESET && len >= STCP_CODE_LEN);
			reset_frame = true;
		}
		frames_at += size;
	}
	if (wire.fin_sent && !said_reset)
		CHECK((fin_frame || reset_frame) && frames_at == wire.out_end);
}

static void check_state(void)
{
	check_what_the_application_got();
	check_what_the_peer_got();
	CHECK(stand_in_pages <= 2 * (int)STCP_BUFFER_PAGES);
	if (relay->seal.out == relay->seal.out_end && relay->open.out == relay->open.out_end && !relay->seal.in_end &&
	    !relay->open.in_end && !stand_in_works)
		CHECK(!stand_in_pages);
}

/* -- one run ---- */

static void start(void)
{
	static const u64 counters[] = {
		0, 1, STCP_REKEY_INTERVAL - 2, STCP_REKEY_INTERVAL, STCP_REKEY_NONCE - 2, 5 * STCP_REKEY_INTERVAL - 1
	};
	static const u32 rooms[] = { 1 << 18, 65536, 20000, 4096, 300, 37 };
	u8 how = byte(), times = byte();
	struct stcp_relay_args args = {
		.idle_ms = times & 1 ? 2000 : 0,
		.half_close_ms = times & 2 ? 1000 : 0,
		.linger_ms = times & 4 ? 1000 : 0,
		.flags = times & 64 ? STCP_RELAY_KEEP : 0,
		.send.counter = counters[how % 6],
		.receive.counter = counters[how / 6 % 6],
	};
	u8 *queued_wire = NULL, *queued_plain = NULL;

	memset(args.send.key, 7, STCP_KEY_LEN);
	memset(args.receive.key, 8, STCP_KEY_LEN);
	deadlines = times & 3;
	interleave = times & 8;
	stream_at = stream_end = expected_end = out_checked = frames_at = text_passed = refusals = 0;
	expected_fin = said_reset = spoiled = fin_frame = reset_frame = broken_leg = gave_up = false;
	memcpy(peer_opens.key, args.send.key, STCP_KEY_LEN);
	memcpy(peer_seals.key, args.receive.key, STCP_KEY_LEN);
	peer_opens.n = args.send.counter;
	peer_seals.n = args.receive.counter;
	owner = (struct stcp_owner){ .relays = 0 };
	INIT_LIST_HEAD(&owner.line);
	INIT_LIST_HEAD(&owner.turn);
	open_leg(&wire, &wire_socket, &wire_file, &wire_leg, wire_in, wire_out, rooms[byte() % 6]);
	open_leg(&plain, &plain_socket, &plain_file, &plain_leg, plain_in, plain_out, rooms[byte() % 6]);
	if (times & 16) {
		wire.icsk_user_timeout = plain.icsk_user_timeout = 1000;
		wire.icsk_probes_out = 4;
		deadlines = true;
	}
	if (times & 32) { /* bytes that came before the handover */
		peer_sends_frame();
		args.wire_len = min(amount(), stream_end);
		args.plain_len = amount() % 5000;
	}
	came_before = args.wire_len;
	if (args.wire_len) {
		queued_wire = kvmalloc(args.wire_len, GFP_KERNEL);
		memcpy(queued_wire, stream, args.wire_len);
		stream_at = args.wire_len;
	}
	if (args.plain_len) {
		queued_plain = kvmalloc(args.plain_len, GFP_KERNEL);
		memcpy(plain_in, text_bytes, args.plain_len);
		memcpy(queued_plain, text_bytes, args.plain_len);
		plain.in_at = plain.in_end = plain.segments[0] = args.plain_len;
		plain.segment_at = plain.segment_end = 1;
	}
	CHECK(!stcp_relay_create(&wire, &args, &plain_socket, queued_wire, queued_plain));
	relay = wire_leg.relay;
}

static void owner_aborts(void)
{
	u8 text[STCP_MAX_TEXT] = { 0 };

	gave_up = true;
	stcp_relay_reset(relay, STCP_END_ABORTED, 0, 1 + byte() % STCP_CODE_INTERNAL_ERROR, text, byte());
}

static void step(void)
{
	struct stcp_status status = { 0 };
	u8 op = byte();

	switch (op & 192) {
	case 0:
		return network_step(op);
	case 64:
		run_a_work_item(op);
		return;
	case 128:
		if (op & 32)
			refusals = byte();
		else
			run_a_work_item(op);
		return;
	default:
		if (op == 255) {
			owner_aborts();
		} else if (op & 32) {
			jiffies += amount();
		} else if (op & 16) {
			skip_to_the_next_work_item();
		} else {
			stcp_relay_status(relay, &status);
			CHECK(status.bytes_to_plain == plain.out_end && status.text_len <= STCP_MAX_TEXT);
		}
	}
}

static void do_all_work(void)
{
	for (int i = 0; i < 20000; i++) {
		give_room(&wire, IN_SIZE);
		give_room(&plain, IN_SIZE);
		arrive(&wire, stream_end - stream_at);
		if (run_a_work_item(0))
			continue;
		if (!stand_in_works || !skip_to_the_next_work_item())
			return;
		if (deadlines && i > 2000)
			return;
	}
	CHECK(!"the relay comes to rest");
}

/* With all room, memory and time, everything that has arrived passes. */
static void check_nothing_waits(void)
{
	if (relay->mode != STCP_MODE_RUN || broken_leg || gave_up || deadlines)
		return;
	if (!spoiled && peer_seals.n != STCP_REKEY_NONCE) {
		CHECK(plain.out_end == expected_end || stream_at < stream_end);
		CHECK(plain.fin_sent == expected_fin || stream_at < stream_end);
	}
	if (peer_opens.n != STCP_REKEY_NONCE) {
		CHECK(text_passed == plain.in_end);
		CHECK(fin_frame == ((plain.flags & SOCK_DONE) != 0));
	}
}

static void finish(void)
{
	hold(&wire, false);
	hold(&plain, false);
	refusals = 0;
	interleave = false;
	wire.size = plain.size = IN_SIZE;
	do_all_work();
	check_state();
	check_nothing_waits();
	fin_arrives(&plain);
	fin_arrives(&wire);
	do_all_work();
	check_state();
	CHECK(relay->ended);
	CHECK(relay->end != STCP_END_PLAIN_RESET || broken_leg || deadlines); /* nobody else is blamed for a frame of the peer */
	if (relay->end == STCP_END_FINISHED)
		CHECK(plain.fin_sent && fin_frame && (wire.fin_sent == !relay->keep || broken_leg));
}

/* The owner takes the wire leg back where it is kept, or closes it. */
static void let_go(void)
{
	bool back = relay->ended && relay->keep && relay->end == STCP_END_FINISHED;

	if (stcp_relay_give_back(&wire)) {
		CHECK(!back);
		stcp_relay_destroy(relay);
		CHECK(plain.fin_sent || plain.sk_state == TCP_CLOSE);
		return;
	}
	CHECK(back && !wire.leg->relay && wire.leg->role == STCP_ROLE_BARE && !wire.sk_lock.owned);
	CHECK(came_before + wire.in_at == over_at); /* no byte of the next connection was taken */
	CHECK(!wire.fin_sent && !wire.rst_sent);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static bool ready;
	int objects = stand_in_objects;

	if (!ready) {
		ready = true;
		stcp_pump_init();
		objects = stand_in_objects;
	}
	take_input(data, size);
	start();
	while (input_left) {
		step();
		check_state();
		if (relay->ended)
			break;
	}
	if (size & 1)
		finish();
	hold(&wire, false);
	hold(&plain, false);
	interleave = false;
	CHECK(plain.fin_sent || plain.sk_state == TCP_CLOSE || !relay->ended);
	let_go();
	while (run_a_work_item(0))
		;
	check_what_the_application_got();
	CHECK(!stand_in_works && !stand_in_pages && stand_in_objects == objects && !plain_file.count && !owner.relays);
	CHECK(!wire.charged && list_empty(&owner.line) && !owner.beyond.counter);
	return 0;
}
