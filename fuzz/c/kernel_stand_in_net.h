/* Sockets and TCP, as the files of kernel/ use them; a part of kernel_stand_in.h. */
#ifndef KERNEL_STAND_IN_NET_H
#define KERNEL_STAND_IN_NET_H

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#define TCP_ZEROCOPY_RECEIVE 35
#define TCP_REPAIR_OPTIONS 22
#undef TCP_REPAIR_WINDOW
#define TCP_REPAIR_WINDOW 29
#define RCV_SHUTDOWN 1
#define SEND_SHUTDOWN 2
#define SHUTDOWN_MASK 3
#define SOCK_DONE 1
#define SOCK_LINGER 2
#define SOCK_URGINLINE 4
#define SOCK_RCVBUF_LOCK 2
#define SOCK_MIN_RCVBUF 2048
#define SOCK_NOSPACE 0
#define ITER_SOURCE 0

struct sock;
struct net {
	struct {
		int sysctl_tcp_rmem[3];
	} ipv4;
};
struct sk_buff {
	const u8 *at;
	u32 len;
	struct {
		u32 seq;
	} cb;
	struct sk_buff *next;
};
#define TCP_SKB_CB(skb) (&(skb)->cb)
#define skb_queue_walk(queue, skb) for (skb = stand_in_segments(queue); skb->at; skb++)
struct sk_buff_head {
	u32 qlen;
};
struct sk_buff *stand_in_segments(struct sk_buff_head *queue);
struct proto {
	void (*release_cb)(struct sock *sk);
	void (*shutdown)(struct sock *sk, int how);
	int (*disconnect)(struct sock *sk, int flags);
};
struct proto_ops {
	int unused;
};
struct tcp_ulp_ops {
	int unused;
};
struct file {
	int count;
};
struct socket {
	struct sock *sk;
	struct file *file;
	const struct proto_ops *ops;
	unsigned long flags;
};
/* A socket, and a small TCP behind it: what has arrived, what was sent, how much room there is. */
struct sock {
	struct {
		spinlock_t slock;
		int owned, wq;
	} sk_lock;
	struct {
		struct sk_buff *head, *tail;
		int len;
	} sk_backlog; /* always empty: what arrives is in the receive queue at once */
	int (*sk_backlog_rcv)(struct sock *sk, struct sk_buff *skb);
	rwlock_t sk_callback_lock;
	struct sk_buff_head sk_receive_queue, sk_error_queue;
	u32 sk_shutdown, sk_userlocks, sk_tsflags, flags;
	struct page_frag sk_frag;
	int sk_err, sk_state, sk_rcvlowat, sk_rcvbuf, sk_sndbuf;
	gfp_t sk_allocation;
	struct socket *sk_socket;
	const struct proto *sk_prot;
	void (*sk_data_ready)(struct sock *sk);
	void (*sk_write_space)(struct sock *sk);
	void (*sk_state_change)(struct sock *sk);
	void (*sk_error_report)(struct sock *sk);
	struct stcp_leg *leg;
	/* tcp_sock and inet_connection_sock */
	u32 urg_data, urg_seq, copied_seq, notsent_lowat, window_clamp, rcv_tstamp, write_seq, snd_una, snd_wnd, packets_out, mss_cache;
	u32 icsk_user_timeout, icsk_probes_out;
	/* the TCP of the harness */
	u8 *in, *out;
	u32 in_at, in_end, segments[64], segment_at, segment_end;
	u32 out_end, room, size;
	bool fin_sent, rst_sent;
	int charged;
};
#define tcp_sock sock
#define inet_connection_sock sock
#define tcp_sk(sk) ((struct sock *)(sk))
#define inet_csk(sk) ((struct sock *)(sk))
extern struct net stand_in_net;
#define sock_net(sk) (&stand_in_net)
extern int sysctl_rmem_max;
extern struct proto tcp_prot;
#define sock_flag(sk, flag) (((sk)->flags & (flag)) != 0)
#define sock_reset_flag(sk, flag) ((sk)->flags &= ~(u32)(flag))
#define clear_bit(bit, at) (*(at) &= ~(1ul << (bit)))
#define skb_queue_empty(q) (!(q)->qlen)
#define skb_queue_empty_lockless skb_queue_empty
#define skb_queue_purge(q) ((q)->qlen = 0)
#define skb_mark_not_on_list(skb) ((skb)->next = NULL)
#define sk_memalloc_socks() false
#define skb_pfmemalloc(skb) ((void)(skb), false)
#define __sk_backlog_rcv(sk, skb) ((void)(sk), (void)(skb), 0)
#define sock_release_ownership(sk) ((sk)->sk_lock.owned = 0)
#define waitqueue_active(queue) ((void)(queue), false)
#define wake_up(queue) ((void)(queue))
#define inet_sk_state_load(sk) ((sk)->sk_state)
#define tcp_win_from_space(sk, space) ((u32)(space) / 2)
#define before(a, b) ((s32)((a) - (b)) < 0)
#define tcp_inq(sk) ((int)((sk)->in_end - (sk)->in_at))
#define sk_wmem_schedule(sk, size) ((sk)->charged >= 0)
#define sk_mem_charge(sk, size) ((sk)->charged += (int)(size))
#define sk_mem_uncharge(sk, size) ((sk)->charged -= (int)(size))
#define tcp_sock_set_cork(sk, on) ((void)(sk))
#define tcp_sock_set_nodelay(sk) ((void)(sk))
void lock_sock(struct sock *sk);
void release_sock(struct sock *sk);
bool sk_stream_is_writeable(const struct sock *sk);
void tcp_abort(struct sock *sk, int err);
void fput(struct file *file);
static inline int skb_copy_bits(const struct sk_buff *skb, u32 offset, void *to, u32 len)
{
	if (offset > skb->len || len > skb->len - offset)
		return -EFAULT;
	memcpy(to, skb->at + offset, len);
	return 0;
}
typedef struct {
	size_t count;
	union {
		void *data;
	} arg;
	int error;
} read_descriptor_t;
typedef int (*sk_read_actor_t)(read_descriptor_t *, struct sk_buff *, unsigned int, size_t);
int tcp_read_sock(struct sock *sk, read_descriptor_t *desc, sk_read_actor_t actor);

struct bio_vec {
	struct page *bv_page;
	u32 bv_len, bv_offset;
};
struct iov_iter {
	const struct bio_vec *vec;
	u32 entries, skip;
	size_t count;
};
#define msghdr stand_in_msghdr
struct msghdr {
	struct iov_iter msg_iter;
	int msg_flags;
};
static inline void iov_iter_bvec(struct iov_iter *i, int way, const struct bio_vec *vec, u32 entries, size_t count)
{
	(void)way;
	*i = (struct iov_iter){ vec, entries, 0, count };
}
static inline void iov_iter_truncate(struct iov_iter *i, size_t count)
{
	if (i->count > count)
		i->count = count;
}
static inline void iov_iter_reexpand(struct iov_iter *i, size_t count)
{
	i->count = count;
}
#define MAX_TCP_OPTION_SPACE 40
#define sk_page_frag(sk) (&(sk)->sk_frag)
int tcp_sendmsg_locked(struct sock *sk, struct msghdr *msg, size_t size);

#endif
