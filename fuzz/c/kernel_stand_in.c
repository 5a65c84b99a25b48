/* What kernel_stand_in.h declares: memory, time, work items, the cipher's stand-in, and a small TCP. */
#include "kernel_harness.h"

unsigned long jiffies;
struct task_struct stand_in_task = { .flags = PF_WQ_WORKER };
struct net stand_in_net = { { { 4096, 131072, 6291456 } } };
int sysctl_rmem_max = 212992;

void stand_in_broken(const char *what, const char *file, int line)
{
	fprintf(stderr, "BROKEN: %s (%s:%d)\n", what, file, line);
	abort();
}

/* -- memory: counted, and refused when the input says so ---- */

int stand_in_objects, stand_in_pages;
bool stand_in_callers_refused;

static bool refuse(gfp_t gfp)
{
	return (gfp & GFP_NOWAIT || stand_in_callers_refused) && input_refuses();
}

struct page *alloc_page(gfp_t gfp)
{
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

/* -- work items ---- */

#define MAX_WORKS 16
static struct work_struct *works[MAX_WORKS];
int stand_in_works;

static void add_work(struct work_struct *work, unsigned long delay)
{
	CHECK(stand_in_works < MAX_WORKS);
	work->queued = true;
	work->at = jiffies + delay;
	works[stand_in_works++] = work;
}

static bool remove_work(struct work_struct *work)
{
	if (!work->queued)
		return false;
	for (int i = 0; i < stand_in_works; i++) {
		if (works[i] == work) {
			works[i] = works[--stand_in_works];
			break;
		}
	}
	work->queued = false;
	return true;
}

/* Run one work item that is due; `which` chooses among them. False if none is. */
bool run_a_work_item(unsigned int which)
{
	struct work_struct *due[MAX_WORKS], *work;
	int n = 0;

	for (int i = 0; i < stand_in_works; i++) {
		if (time_after_eq(jiffies, works[i]->at))
			due[n++] = works[i];
	}
	if (!n)
		return false;
	work = due[which % (unsigned int)n];
	remove_work(work);
	work->func(work);
	return true;
}

/* Let time pass until the next work item is due. False if none waits. */
bool skip_to_the_next_work_item(void)
{
	unsigned long next = ULONG_MAX;

	for (int i = 0; i < stand_in_works; i++)
		next = works[i]->at < next ? works[i]->at : next;
	if (!stand_in_works)
		return false;
	if (time_before(jiffies, next))
		jiffies = next;
	return true;
}

bool queue_work(struct workqueue_struct *queue, struct work_struct *work)
{
	(void)queue;
	if (work->queued)
		return false;
	add_work(work, 0);
	return true;
}

bool queue_delayed_work(struct workqueue_struct *queue, struct delayed_work *work, unsigned long delay)
{
	(void)queue;
	if (work->work.queued)
		return false;
	add_work(&work->work, delay);
	work->timer.expires = work->work.at;
	return true;
}

bool mod_delayed_work(struct workqueue_struct *queue, struct delayed_work *work, unsigned long delay)
{
	bool was = remove_work(&work->work);

	queue_delayed_work(queue, work, delay);
	return was;
}

bool cancel_delayed_work_sync(struct delayed_work *work)
{
	return remove_work(&work->work);
}

bool flush_delayed_work(struct delayed_work *work)
{
	bool was = remove_work(&work->work);

	if (was)
		work->work.func(&work->work);
	return was;
}

struct workqueue_struct *alloc_workqueue(const char *name, unsigned int flags, int max_active)
{
	static struct workqueue_struct queue;

	(void)name, (void)flags, (void)max_active;
	return &queue;
}

void destroy_workqueue(struct workqueue_struct *queue)
{
	(void)queue;
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
	CHECK(size == sizeof(tfm->key));
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
	CHECK(!sk->sk_lock.owned);
	sk->sk_lock.owned = 1;
}

void release_sock(struct sock *sk)
{
	CHECK(sk->sk_lock.owned && !sk->sk_lock.slock.held);
	spin_lock_bh(&sk->sk_lock.slock);
	sk->sk_prot->release_cb(sk);
	sk->sk_lock.owned = 0;
	spin_unlock_bh(&sk->sk_lock.slock);
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
	CHECK(sk->sk_lock.owned);
	sk->rst_sent = true;
	sk->in_at = sk->in_end;
	sk->sk_receive_queue.qlen = 0;
	close_socket(sk, ECONNRESET);
	sk->sk_error_report(sk);
	return 0;
}

static void tcp_shutdown(struct sock *sk, int how)
{
	CHECK(how == SEND_SHUTDOWN && sk->sk_lock.owned && !sk->fin_sent && sk->sk_state != TCP_CLOSE);
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

	CHECK(sk->sk_lock.owned);
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

	CHECK(sk->sk_lock.owned);
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

	CHECK(sk->sk_lock.owned && from->count == size);
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
