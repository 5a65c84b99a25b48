/* What the files of the harness for kernel/ share; kernel.c describes the harness.
 *
 * kernel.c           relays: the steps, and what is checked
 * sockets.c          the same for sockets of the protocol
 * kernel_input.c     the input
 * kernel_network.c   the peer, its keys, and events of the network
 * kernel_legs.c      two legs, and the files of kernel/ that do not run here
 * kernel_stand_in.c  the calls of the kernel
 */
#ifndef KERNEL_HARNESS_H
#define KERNEL_HARNESS_H

#include "internal.h"
#include "toy_cipher.h"

enum {
	OUT_SIZE = 1 << 19, /* bytes that a leg may send in one run */
	IN_SIZE = 1 << 18,
};

/* kernel_input.c */
extern u8 text_bytes[IN_SIZE + STCP_MAX_FRAME]; /* text without a period, so that a byte out of its place shows */
extern size_t input_left;
extern u32 refusals; /* a bit for each of the next allocations and sends that may fail */
void take_input(const u8 *data, size_t size);
u8 byte(void);
u32 amount(void);
bool input_refuses(void); /* whether the input has this allocation or send fail */

/* kernel_network.c */
extern struct toy_keys peer_seals, peer_opens;
extern u8 stream[IN_SIZE], expected[IN_SIZE];            /* of the peer, and the text that the application has to get */
extern u32 stream_at, stream_end, expected_end, over_at; /* over_at: bytes of the stream up to the end of FIN */
extern bool expected_fin, said_reset, spoiled, broken_leg, within_turn;
void peer_sends_frame(void);
void arrive(struct sock *sk, u32 len);
void fin_arrives(struct sock *sk);
void give_room(struct sock *sk, u32 len);
void hold(struct sock *sk, bool held);
void network_step(u8 step);

/* kernel_legs.c */
extern u8 wire_in[IN_SIZE], wire_out[OUT_SIZE], plain_in[IN_SIZE], plain_out[OUT_SIZE];
extern struct file wire_file, plain_file;
extern struct socket wire_socket, plain_socket;
extern struct sock wire, plain;
extern struct stcp_leg wire_leg, plain_leg;
extern struct stcp_owner owner;
void open_leg(struct sock *sk, struct socket *socket, struct file *file, struct stcp_leg *leg, u8 *in, u8 *out, u32 room);

/* kernel_stand_in.c */
extern int stand_in_objects, stand_in_pages, stand_in_works;
extern bool stand_in_callers_refused; /* whether allocations that may sleep fail too */
bool run_a_work_item(unsigned int which);
bool skip_to_the_next_work_item(void);

#endif
