/* What kernel_stand_in.h declares: memory, time, the cipher's stand-in, and a small TCP. */
#include "kernel_harness.h"

unsigned long jiffies;
struct net stand_in_net = { { { 4096, 131072, 6291456 } } };
int sysctl_rmem_max = 212992;

void stand_in_broken(const char *what, const char *file, int line)
{
	fprintf(stderr, "BROKEN: %s (%s:%d)\n", what, file, line);
	abort();
}

/* -- memory: counted, and refused when the input says so ---- */

int stand_in_objects, stand_in_pages;

static bool refuse(gfp_t gfp)
{
	return gfp & GFP_NOWAIT && input_refuses();
}

struct page *alloc_page(gfp_t gfp)
{
	CHECK(gfp & GFP_NOWAIT || !in_serving_softirq());
	if (refuse(gfp))
		return NULL;
	stand_in_pages++;
	return malloc(sizeof(struct page));
}

void __free_page(struct page *page)
{
	stand_in_pages--;
	free(page);
}

void *stand_in_alloc(size_t size, gfp_t gfp)
{
	CHECK(gfp & GFP_NOWAIT || !in_serving_softirq());
	if (refuse(gfp))
		return NULL;
	stand_in_objects++;
	return calloc(1, size);
}

void stand_in_free(void *at)
{
	if (!at)
		return;
	stand_in_objects--;
	free(at);
}

/* -- the cipher's stand-in ---- */

static u8 gathered[STCP_MAX_FRAME];

static void copy(const struct scatterlist *sg, u32 size, bool back)
{
	for (u32 at = 0, part; size; sg++, at += part, size -= part) {
		part = min(size, sg->length);
		memcpy(back ? sg->at : gathered + at, back ? gathered + at : sg->at, part);
		CHECK(part == size || !sg->last);
	}
}

int crypto_aead_encrypt(struct aead_request *req)
{
	copy(req->sg, req->ad + req->size, false);
	toy_seal(req->tfm->key, req->nonce, gathered, req->ad, gathered + req->ad, req->size, gathered + req->ad + req->size);
	copy(req->sg, req->ad + req->size + STCP_TAG_LEN, true);
	return 0;
}

int crypto_aead_decrypt(struct aead_request *req)
{
	u32 text = req->size - STCP_TAG_LEN;

	CHECK(req->size >= STCP_TAG_LEN);
	copy(req->sg, req->ad + req->size, false);
	if (!toy_open(req->tfm->key, req->nonce, gathered, req->ad, gathered + req->ad, text, gathered + req->ad + text))
		return -EBADMSG;
	copy(req->sg, req->ad + text, true);
	return 0;
}

struct crypto_aead *crypto_alloc_aead(const char *name, u32 type, u32 mask)
{
	(void)name, (void)type, (void)mask;
	return stand_in_alloc(sizeof(struct crypto_aead), GFP_KERNEL);
}

void crypto_free_aead(struct crypto_aead *tfm)
{
	stand_in_free(tfm);
}

int crypto_aead_setkey(struct crypto_aead *tfm, const u8 *key, unsigned int size)
{
	CHECK(size == sizeof(tfm->key) && !in_serving_softirq());
	memcpy(tfm->key, key, size);
	return 0;
}

struct aead_request *aead_request_alloc(struct crypto_aead *tfm, gfp_t gfp)
{
	struct aead_request *req = stand_in_alloc(sizeof(*req), gfp & ~GFP_NOWAIT);

	req->tfm = tfm;
	return req;
}

void aead_request_free(struct aead_request *req)
{
	stand_in_free(req);
}

/* -- a small TCP ---- */

void lock_sock(struct sock *sk)
{
	CHECK(!sk->sk_lock.owned && !in_serving_softirq());
	sk->sk_lock.owned = 1;
}

void release_sock(struct sock *sk)
{
	CHECK(sk->sk_lock.owned && !sk->sk_lock.slock.held && !in_serving_softirq());
	spin_lock_bh(&sk->sk_lock.slock);
	sk->sk_prot->release_cb(sk);
	sk->sk_lock.owned = 0;
	spin_unlock_bh(&sk->sk_lock.slock);
}

/* Whoever calls TCP owns the socket, or is a tasklet and holds the spinlock of one that nobody owns. */
static bool locked(const struct sock *sk)
{
	return in_serving_softirq() ? sk->sk_lock.slock.held && !sk->sk_lock.owned : sk->sk_lock.owned;
}

bool sk_stream_is_writeable(const struct sock *sk)
{
	return sk->room * 3 >= sk->size;
}

static void close_socket(struct sock *sk, int err)
{
	sk->sk_err = err;
	sk->sk_state = TCP_CLOSE;
	sk->sk_shutdown = SHUTDOWN_MASK;
}

void tcp_abort(struct sock *sk, int err)
{
	lock_sock(sk);
	if (sk->sk_state != TCP_CLOSE) {
		sk->rst_sent = true;
		close_socket(sk, err);
		sk->sk_error_report(sk);
		sk->sk_state_change(sk);
	}
	release_sock(sk);
}

static int tcp_disconnect(struct sock *sk, int flags)
{
	(void)flags;
	CHECK(locked(sk));
	sk->rst_sent = true;
	sk->in_at = sk->in_end;
	sk->sk_receive_queue.qlen = 0;
	close_socket(sk, ECONNRESET);
	sk->sk_error_report(sk);
	return 0;
}

static void tcp_shutdown(struct sock *sk, int how)
{
	CHECK(how == SEND_SHUTDOWN && locked(sk) && !sk->fin_sent && sk->sk_state != TCP_CLOSE);
	sk->fin_sent = true;
}

static void tcp_release_cb(struct sock *sk)
{
	CHECK(sk->sk_lock.slock.held);
}

struct proto tcp_prot = { .release_cb = tcp_release_cb, .shutdown = tcp_shutdown, .disconnect = tcp_disconnect };

void fput(struct file *file)
{
	CHECK(file->count > 0);
	file->count--;
}

/* As tcp_read_sock() of Linux: after a part of a segment the actor is called again. */
int tcp_read_sock(struct sock *sk, read_descriptor_t *desc, sk_read_actor_t actor)
{
	int copied = 0;

	CHECK(locked(sk));
	while (sk->in_at < sk->in_end) {
		u32 end = sk->segments[sk->segment_at], start = sk->segment_at ? sk->segments[sk->segment_at - 1] : 0;
		struct sk_buff skb = { sk->in + start, end - start };
		u32 offset = sk->in_at - start;
		int used = actor(desc, &skb, offset, skb.len - offset);

		if (used <= 0) {
			if (!copied)
				copied = used;
			break;
		}
		CHECK((u32)used <= end - sk->in_at);
		sk->in_at += (u32)used;
		copied += used;
		if (sk->in_at < end)
			continue;
		sk->segment_at++;
		if (!desc->count)
			break;
	}
	sk->sk_receive_queue.qlen = sk->in_at < sk->in_end;
	sk->copied_seq = sk->in_at;
	return copied;
}

/* The segments that wait, and behind them one without bytes. */
struct sk_buff *stand_in_segments(struct sk_buff_head *queue)
{
	static struct sk_buff found[65];
	struct sock *sk = container_of(queue, struct sock, sk_receive_queue);
	u32 n = 0;

	CHECK(locked(sk));
	for (u32 i = sk->segment_at; i < sk->segment_end; i++) {
		u32 start = i ? sk->segments[i - 1] : 0;

		found[n++] = (struct sk_buff){ sk->in + start, sk->segments[i] - start, { start } };
	}
	found[n].at = NULL;
	return found;
}

int tcp_sendmsg_locked(struct sock *sk, struct msghdr *msg, size_t size)
{
	struct iov_iter *from = &msg->msg_iter;
	bool beyond = sk->sk_sndbuf == INT_MAX;
	u32 sent = 0;

	CHECK(locked(sk) && from->count == size);
	if (sk->sk_err) { /* an error is reported once */
		int err = -sk->sk_err;

		sk->sk_err = 0;
		return err;
	}
	if (sk->fin_sent || sk->sk_shutdown & SEND_SHUTDOWN || sk->sk_state == TCP_CLOSE)
		return -EPIPE;
	if (input_refuses()) { /* no memory */
		set_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
		return -EAGAIN;
	}
	while (from->count && (sk->room || beyond)) {
		u32 part = min_t(u32, from->vec->bv_len - from->skip, min_t(u32, (u32)from->count, beyond ? UINT32_MAX : sk->room));

		CHECK(from->entries && sk->out_end + part <= OUT_SIZE);
		memcpy(sk->out + sk->out_end, from->vec->bv_page->bytes + from->vec->bv_offset + from->skip, part);
		sk->out_end += part;
		sk->room -= min(part, sk->room);
		sk->snd_wnd = sk->room;
		sk->write_seq += part;
		sent += part;
		from->skip += part;
		from->count -= part;
		if (from->skip == from->vec->bv_len) {
			from->vec++;
			from->entries--;
			from->skip = 0;
		}
	}
	if (from->count)
		set_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
	return sent ? (int)sent : -EAGAIN;
}
