// SPDX-License-Identifier: GPL-2.0
/*
 * Buffers: up to one whole frame in single pages.
 *
 * A direction holds pages only for the bytes that it has: a peer that sends five
 * bytes of a frame makes us hold one page, whatever length the header announces.
 * The pages are charged to the memory cgroup of the relay's owner, which
 * stcp_turn() has made the active one. A carrier's allocation never sleeps: it
 * serves all users, so it must not wait for the memory of one of them.
 *
 * A cgroup at its limit refuses whoever does not reclaim. Page cache brings a cgroup
 * there in the long run, and while its processes sleep, nobody reclaims. So relays that
 * wait for a page would wait for ever, while TCP charges what it receives beyond the
 * limit. Therefore the buffers of an owner's relays have an allowance beyond it.
 *
 * Single pages are always found where there is memory at all; 64 KiB in one
 * piece are not.
 */
#include <linux/mm.h>
#include <linux/scatterlist.h>

#include "internal.h"

/* 16 MiB: some hundred frames, a part of which peers may leave incomplete. */
#define STCP_BEYOND_PAGES	((16 << 20) / PAGE_SIZE)

/*
 * A page beyond the limit. __GFP_HIGH has it charged there, and would also take from the
 * machine's reserves, so the machine is asked first.
 */
static struct page *stcp_page_beyond(struct stcp_buffer *b, gfp_t gfp)
{
	struct page *page;

	if (!b->allowance)
		return NULL;
	if (atomic_inc_return(b->allowance) > STCP_BEYOND_PAGES)
		goto err;
	page = alloc_page(gfp);
	if (!page)
		goto err;
	__free_page(page);
	page = alloc_page(gfp | __GFP_HIGH | __GFP_ACCOUNT);
	if (!page)
		goto err;
	b->beyond++;
	return page;

err:
	atomic_dec(b->allowance);
	return NULL;
}

/*
 * Make room for the first @size bytes. A relay's carrier asks with GFP_NOWAIT, a
 * system call of a socket's owner with GFP_KERNEL. Return: 0 or -ENOBUFS.
 */
int stcp_buffer_grow(struct stcp_buffer *b, u32 size, gfp_t gfp)
{
	gfp |= __GFP_NOWARN;
	while (b->count * PAGE_SIZE < size) {
		struct page *page = alloc_page(gfp | __GFP_ACCOUNT);

		if (!page)
			page = stcp_page_beyond(b, gfp);
		if (!page)
			return -ENOBUFS;
		b->pages[b->count] = page;
		WRITE_ONCE(b->count, b->count + 1);
	}
	return 0;
}

void stcp_buffer_free(struct stcp_buffer *b)
{
	u32 count = b->count;

	WRITE_ONCE(b->count, 0);
	while (count--)
		__free_page(b->pages[count]);
	if (b->beyond)
		atomic_sub(b->beyond, b->allowance);
	b->beyond = 0;
}

static u8 *stcp_buffer_at(const struct stcp_buffer *b, u32 at)
{
	return (u8 *)page_address(b->pages[at / PAGE_SIZE]) + offset_in_page(at);
}

/* How many of the @len bytes from @at on lie in the page of the first. */
static u32 stcp_buffer_part(u32 at, u32 len)
{
	return min_t(u32, len, PAGE_SIZE - offset_in_page(at));
}

void stcp_buffer_write(struct stcp_buffer *b, u32 at, const void *from, u32 len)
{
	u32 part;

	for (; len; at += part, from += part, len -= part) {
		part = stcp_buffer_part(at, len);
		memcpy(stcp_buffer_at(b, at), from, part);
	}
}

void stcp_buffer_read(const struct stcp_buffer *b, u32 at, void *to, u32 len)
{
	u32 part;

	for (; len; at += part, to += part, len -= part) {
		part = stcp_buffer_part(at, len);
		memcpy(to, stcp_buffer_at(b, at), part);
	}
}

/* Copy bytes of one buffer to another one. */
void stcp_buffer_copy(struct stcp_buffer *b, u32 at, const struct stcp_buffer *from,
		      u32 from_at, u32 len)
{
	u32 part;

	for (; len; at += part, from_at += part, len -= part) {
		part = stcp_buffer_part(from_at, len);
		stcp_buffer_write(b, at, stcp_buffer_at(from, from_at), part);
	}
}

/* Copy bytes of a segment. Return: 0 or a negative errno. */
int stcp_buffer_write_skb(struct stcp_buffer *b, u32 at, const struct sk_buff *skb,
			  u32 offset, u32 len)
{
	u32 part;
	int err;

	for (; len; at += part, offset += part, len -= part) {
		part = stcp_buffer_part(at, len);
		err = skb_copy_bits(skb, offset, stcp_buffer_at(b, at), part);
		if (err)
			return err;
	}
	return 0;
}

/* Describe bytes for an iterator. Return: entries used of STCP_BUFFER_PAGES. */
u32 stcp_buffer_bvec(const struct stcp_buffer *b, struct bio_vec *vec, u32 at,
		     u32 len)
{
	u32 i = 0, part;

	for (; len; at += part, len -= part, i++) {
		part = stcp_buffer_part(at, len);
		vec[i].bv_page = b->pages[at / PAGE_SIZE];
		vec[i].bv_offset = offset_in_page(at);
		vec[i].bv_len = part;
	}
	return i;
}

/* Describe the first @len bytes for the cipher. */
void stcp_buffer_sg(const struct stcp_buffer *b, struct scatterlist *sg, u32 len)
{
	u32 i, count = DIV_ROUND_UP(len, PAGE_SIZE);

	sg_init_table(sg, count);
	for (i = 0; i < count; i++, len -= PAGE_SIZE)
		sg_set_page(sg + i, b->pages[i], min_t(u32, len, PAGE_SIZE), 0);
}
