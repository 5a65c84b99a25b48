/* Two legs for the fuzzer of the kernel module, and the files of kernel/ that do not run here. */
#include "kernel_harness.h"

u8 wire_in[IN_SIZE], wire_out[OUT_SIZE], plain_in[IN_SIZE], plain_out[OUT_SIZE];
struct file wire_file, plain_file;
struct socket wire_socket, plain_socket;
struct sock wire, plain;
struct stcp_leg wire_leg, plain_leg;
struct stcp_owner owner;
struct proto stcp_relay_prots[STCP_FAMILIES] = { { .release_cb = stcp_release_cb }, { .release_cb = stcp_release_cb } };
struct proto_ops stcp_relay_ops[STCP_FAMILIES], stcp_bare_ops[STCP_FAMILIES];

static void called_nobody(struct sock *sk)
{
	(void)sk;
}

struct proto stcp_bare_prots[STCP_FAMILIES] = { { .release_cb = called_nobody }, { .release_cb = called_nobody } };

void open_leg(struct sock *sk, struct socket *socket, struct file *file, struct stcp_leg *leg, u8 *in, u8 *out, u32 room)
{
	*file = (struct file){ .count = 1 };
	*socket = (struct socket){ .sk = sk, .file = file };
	*leg = (struct stcp_leg){ .sk = sk, .base = &tcp_prot };
	*sk = (struct sock){ .sk_socket = socket,
			     .sk_prot = &tcp_prot,
			     .sk_state = TCP_ESTABLISHED,
			     .sk_data_ready = called_nobody,
			     .sk_write_space = called_nobody,
			     .sk_state_change = called_nobody,
			     .sk_error_report = called_nobody,
			     .leg = leg,
			     .in = in,
			     .out = out,
			     .room = room,
			     .snd_wnd = room,
			     .size = room,
			     .mss_cache = 1460 };
}

struct stcp_leg *stcp_leg_of(const struct sock *sk)
{
	return sk->leg;
}

int stcp_leg_claim(struct sock *sk, struct stcp_leg **claimed)
{
	*claimed = sk->leg;
	sk->leg->role = STCP_ROLE_CLAIMED;
	return 0;
}

void stcp_leg_unclaim(struct stcp_leg *leg)
{
	leg->role = STCP_ROLE_BARE;
}

struct stcp_owner *stcp_owner_get(void)
{
	owner.relays++;
	return &owner;
}

void stcp_owner_put(struct stcp_owner *o)
{
	o->relays--;
}

void stcp_stat_add(struct net *net, enum stcp_stat stat, s64 delta)
{
	(void)net, (void)delta;
	CHECK(stat < STCP_STAT_COUNT);
}
