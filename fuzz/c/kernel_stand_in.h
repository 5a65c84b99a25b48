/* The calls of the kernel that the files of kernel/ make, in user space and in one thread.
 *
 * fuzz/build.py gives every kernel header that these files include the content of this one. Locks check that they are not taken twice, pages
 * and objects are counted, work items wait in an array until the harness runs them, and time passes when the harness says so.
 * The cipher is not AES-GCM but has its shape: in place, over a scatterlist, with a tag over key, nonce, header and ciphertext.
 */
#ifndef KERNEL_STAND_IN_H
#define KERNEL_STAND_IN_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8, __u8;
typedef uint16_t u16, __u16;
typedef uint32_t u32, __u32;
typedef int32_t s32, __s32;
typedef unsigned long long u64, __u64;
typedef long long s64, __s64;
typedef unsigned int gfp_t;

#define BITS_PER_LONG 64
#define PAGE_SIZE 4096u
#define HZ 250
#define __user
#define __init
#define __exit
#define __read_mostly
#define likely(x) (x)
#define unlikely(x) (x)
#define READ_ONCE(x) (x)
#define WRITE_ONCE(x, v) ((x) = (v))
#define smp_mb() ((void)0)
#define smp_store_release(p, v) (*(p) = (v))
#define smp_load_acquire(p) (*(p))
#define smp_store_mb(x, v) ((x) = (v))
#define xchg(p, v)                                                                                                                         \
	({                                                                                                                                 \
		__typeof__(*(p)) was_ = *(p);                                                                                              \
		*(p) = (v);                                                                                                                \
		was_;                                                                                                                      \
	})
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define min_t(type, a, b)                                                                                                                  \
	({                                                                                                                                 \
		type a_ = (a), b_ = (b);                                                                                                   \
		a_ < b_ ? a_ : b_;                                                                                                         \
	})
#define min(a, b) min_t(__typeof__((a) + (b)), a, b)
#define max(a, b) ((a) > (b) ? (a) : (b))
#define clamp_t(type, v, lo, hi) min_t(type, (type)(v) < (type)(lo) ? (type)(lo) : (type)(v), hi)
#define container_of(at, type, member) ((type *)((char *)(at) - offsetof(type, member)))
#define offset_in_page(at) ((u32)(at) & (PAGE_SIZE - 1))
#define scnprintf snprintf /* the text fits */
#define cond_resched() stand_in_between_turns()
#define _RET_IP_ 0

/* End with a report: the code under test broke a rule. */
#define CHECK(what) ((what) ? (void)0 : stand_in_broken(#what, __FILE__, __LINE__))
void stand_in_broken(const char *what, const char *file, int line) __attribute__((noreturn));
void stand_in_between_turns(void);

/* -- errors as pointers ---- */
#define IS_ERR(p) ((unsigned long)(p) >= (unsigned long)-4095)
#define PTR_ERR(p) ((int)(long)(p))
#define ERR_PTR(e) ((void *)(long)(e))
#define ERR_CAST(p) ((void *)(p))

/* -- locks ---- */
typedef struct {
	int held;
} spinlock_t, rwlock_t;
#define DEFINE_SPINLOCK(name) spinlock_t name
#define spin_lock_init(l) ((l)->held = 0)
static inline void spin_lock(spinlock_t *l)
{
	CHECK(!l->held);
	l->held = 1;
}
static inline void spin_unlock(spinlock_t *l)
{
	CHECK(l->held);
	l->held = 0;
}
#define spin_lock_bh spin_lock
#define spin_unlock_bh spin_unlock
#define read_lock_bh spin_lock
#define read_unlock_bh spin_unlock
#define write_lock_bh spin_lock
#define write_unlock_bh spin_unlock
#define lockdep_assert_held(l) CHECK((l)->held)
#define local_bh_disable() ((void)0)
#define local_bh_enable() ((void)0)

/* -- lists ---- */
struct list_head {
	struct list_head *next, *prev;
};
#define LIST_HEAD(name) struct list_head name = { &name, &name }
static inline void INIT_LIST_HEAD(struct list_head *l)
{
	l->next = l->prev = l;
}
static inline bool list_empty(const struct list_head *l)
{
	return l->next == l;
}
static inline void list_add(struct list_head *n, struct list_head *after)
{
	n->next = after->next;
	n->prev = after;
	after->next->prev = n;
	after->next = n;
}
#define list_add_tail(n, head) list_add(n, (head)->prev)
static inline void list_del(struct list_head *l)
{
	l->next->prev = l->prev;
	l->prev->next = l->next;
	l->next = l->prev = NULL;
}
static inline void list_del_init(struct list_head *l)
{
	list_del(l);
	INIT_LIST_HEAD(l);
}
static inline void list_move_tail(struct list_head *l, struct list_head *head)
{
	list_del(l);
	list_add_tail(l, head);
}
#define list_last_entry(head, type, member) container_of((head)->prev, type, member)
#define list_first_entry(head, type, member) container_of((head)->next, type, member)
#define list_first_entry_or_null(head, type, member) (list_empty(head) ? NULL : list_first_entry(head, type, member))

/* -- references ---- */
#define U32_MAX UINT32_MAX
typedef struct {
	int count;
} refcount_t;
#define refcount_set(r, n) ((r)->count = (n))
static inline void refcount_inc(refcount_t *r)
{
	CHECK(r->count > 0);
	r->count++;
}
static inline bool refcount_dec_and_test(refcount_t *r)
{
	CHECK(r->count > 0);
	return !--r->count;
}

typedef struct {
	int counter;
} atomic_t;
#define atomic_inc_return(a) (++(a)->counter)
#define atomic_dec(a) ((void)--(a)->counter)
#define atomic_sub(n, a) ((void)((a)->counter -= (n)))

/* -- where the code runs: never in an interrupt ---- */
#define in_hardirq() false
#define irqs_disabled() false

/* -- memory ---- */
#define GFP_KERNEL 1u
#define GFP_NOWAIT 2u
#define GFP_ATOMIC 4u
#define __GFP_NOWARN 8u
#define __GFP_ACCOUNT 16u
#define __GFP_HIGH 32u
#define GFP_KERNEL_ACCOUNT (GFP_KERNEL | __GFP_ACCOUNT)
struct mem_cgroup {
	int unused;
};
static inline struct mem_cgroup *set_active_memcg(struct mem_cgroup *memcg)
{
	return memcg;
}
struct page {
	u8 bytes[PAGE_SIZE];
};
#define page_address(p) ((void *)(p)->bytes)
struct page *alloc_page(gfp_t gfp);
void __free_page(struct page *page);
void *stand_in_alloc(size_t size, gfp_t gfp);
void stand_in_free(void *at);
#define kzalloc(size, gfp) stand_in_alloc(size, gfp)
#define kvmalloc(size, gfp) stand_in_alloc(size, gfp)
#define kcalloc(n, size, gfp) stand_in_alloc((size_t)(n) * (size), gfp)
#define kfree stand_in_free
#define kvfree stand_in_free
#define kfree_sensitive stand_in_free
struct page_frag {
	struct page *page;
};
#define PF_WQ_WORKER 1u
#define PF_KTHREAD 2u
struct task_struct {
	unsigned int flags;
	struct page_frag task_frag;
};
extern struct task_struct stand_in_task;
#define current (&stand_in_task)
#define memalloc_noreclaim_save() 0u
#define memalloc_noreclaim_restore(flags) ((void)(flags))
#define swap(a, b)                                                                                                                         \
	do {                                                                                                                               \
		__typeof__(a) a_ = (a);                                                                                                    \
		(a) = (b);                                                                                                                 \
		(b) = a_;                                                                                                                  \
	} while (0)
#define memzero_explicit(at, size) memset(at, 0, size)
static inline void *memchr_inv(const void *at, int c, size_t size)
{
	for (const u8 *p = at; size; p++, size--)
		if (*p != (u8)c)
			return (void *)p;
	return NULL;
}

/* -- big-endian ---- */
static inline u16 get_unaligned_be16(const void *p)
{
	const u8 *at = p;

	return (u16)(at[0] << 8 | at[1]);
}
static inline void put_unaligned_be16(u16 v, void *p)
{
	u8 *at = p;

	at[0] = (u8)(v >> 8);
	at[1] = (u8)v;
}
static inline void put_unaligned_be64(u64 v, void *p)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		((u8 *)p)[i] = (u8)v;
}

/* -- time and work items ---- */
extern unsigned long jiffies;
#define tcp_jiffies32 ((u32)jiffies)
#define msecs_to_jiffies(ms) ((unsigned long)(ms) / 4)
#define time_before(a, b) ((long)((a) - (b)) < 0)
#define time_after_eq(a, b) ((long)((a) - (b)) >= 0)
struct work_struct {
	void (*func)(struct work_struct *work);
	bool queued;
	unsigned long at; /* jiffies */
};
struct delayed_work {
	struct work_struct work;
	struct {
		unsigned long expires;
	} timer;
};
struct workqueue_struct {
	int unused;
};
#define WQ_UNBOUND 0
#define WQ_MEM_RECLAIM 0
#define INIT_WORK(w, f) (*(w) = (struct work_struct){ .func = (f) })
#define INIT_DELAYED_WORK(w, f) (*(w) = (struct delayed_work){ .work.func = (f) })
#define to_delayed_work(w) container_of(w, struct delayed_work, work)
#define delayed_work_pending(w) ((w)->work.queued)
struct workqueue_struct *alloc_workqueue(const char *name, unsigned int flags, int max_active);
void destroy_workqueue(struct workqueue_struct *queue);
bool queue_work(struct workqueue_struct *queue, struct work_struct *work);
bool queue_delayed_work(struct workqueue_struct *queue, struct delayed_work *work, unsigned long delay);
bool mod_delayed_work(struct workqueue_struct *queue, struct delayed_work *work, unsigned long delay);
bool cancel_delayed_work_sync(struct delayed_work *work);
bool flush_delayed_work(struct delayed_work *work);
struct completion {
	bool done;
};
#define DECLARE_COMPLETION_ONSTACK(name) struct completion name = { false }
#define complete(c) ((c)->done = true)
#define wait_for_completion(c) CHECK((c)->done) /* in one thread nobody else could complete it */
#define num_online_cpus() 2u
#define num_possible_cpus() 2u

/* -- scatterlists and the cipher ---- */
struct scatterlist {
	u8 *at;
	u32 length;
	bool last;
};
static inline void sg_init_table(struct scatterlist *sg, u32 count)
{
	memset(sg, 0, count * sizeof(*sg));
	sg[count - 1].last = true;
}
static inline void sg_set_page(struct scatterlist *sg, struct page *page, u32 length, u32 offset)
{
	sg->at = page->bytes + offset;
	sg->length = length;
}
static inline void sg_init_one(struct scatterlist *sg, void *at, u32 length)
{
	*sg = (struct scatterlist){ at, length, true };
}
struct crypto_aead {
	u8 key[32];
};
struct aead_request {
	struct crypto_aead *tfm;
	u32 ad, size;
	struct scatterlist *sg;
	const u8 *nonce;
};
struct crypto_wait {
	int unused;
};
#define CRYPTO_ALG_KERN_DRIVER_ONLY 0
#define CRYPTO_ALG_NEED_FALLBACK 0
#define CRYPTO_ALG_ALLOCATES_MEMORY 0
#define CRYPTO_ALG_INSTANCE 0
#define CRYPTO_ALG_ASYNC 0
#define CRYPTO_ALG_TYPE_AEAD 0
#define CRYPTO_ALG_TYPE_MASK 0
#define CRYPTO_NOLOAD 0
#define crypto_has_alg(name, type, mask) true
#define CRYPTO_TFM_REQ_MAY_BACKLOG 0
#define CRYPTO_MAX_ALG_NAME 128
#define crypto_aead_tfm(tfm) (tfm)
#define crypto_tfm_alg_driver_name(tfm) ((void)(tfm), "toy")
#define crypto_req_done NULL
#define crypto_init_wait(w) ((void)(w))
#define crypto_wait_req(err, wait) (err)
#define aead_request_set_callback(req, flags, done, data) ((void)(req))
#define aead_request_set_ad(req, length) ((req)->ad = (length))
#define aead_request_set_crypt(req, from, to, length, iv) ((req)->sg = (from), (req)->size = (length), (req)->nonce = (iv))
#define crypto_aead_setauthsize(tfm, size) ((void)(tfm), 0)
struct crypto_aead *crypto_alloc_aead(const char *name, u32 type, u32 mask);
void crypto_free_aead(struct crypto_aead *tfm);
int crypto_aead_setkey(struct crypto_aead *tfm, const u8 *key, unsigned int size);
struct aead_request *aead_request_alloc(struct crypto_aead *tfm, gfp_t gfp);
void aead_request_free(struct aead_request *req);
int crypto_aead_encrypt(struct aead_request *req);
int crypto_aead_decrypt(struct aead_request *req);

#include "kernel_stand_in_net.h"

/* -- what only the declarations of internal.h and compat.h name ---- */
typedef struct {
	int val;
} kuid_t;
typedef struct {
	const void *user;
} sockptr_t;
#define set_bit(bit, at) (*(at) |= 1ul << (bit))
#define stcp_end_sleepers(sk) ((void)(sk)) /* there are none */
#define _STCP_COMPAT_H                     /* compat.h is about differences between kernels */
#define stcp_ask_for_socket_options(socket) ((void)(socket))
#define stcp_leave_socket_options(socket) ((void)(socket))

#endif
