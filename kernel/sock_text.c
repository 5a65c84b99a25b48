// SPDX-License-Identifier: GPL-2.0
/*
 * Texts: DATA frames that were opened and not read yet.
 *
 * Most often there is at most one. There are more where MSG_PEEK or FIONREAD has looked
 * further. The peer decides how long its frames are, so memory is counted by what is
 * held, not by the bytes of text: one byte in a page of its own holds 200 times its size
 * in wire bytes. A text that finds room in the pages of the last one joins it. Thus a
 * text is always longer than the room that the text before it has left, and all texts
 * together hold little more than twice their bytes.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uio.h>

#include "sock_internal.h"

static u32 stcp_text_held(const struct stcp_text *text)
{
	return sizeof(*text) + text->buffer.count * PAGE_SIZE;
}

void stcp_text_free(struct stcp_text *text)
{
	stcp_buffer_free(&text->buffer);
	kfree(text);
}

static bool stcp_text_join(struct stcp_session *e, const struct stcp_text *text, u32 len)
{
	struct stcp_text *last;

	if (list_empty(&e->texts))
		return false;
	last = list_last_entry(&e->texts, struct stcp_text, list);
	if (last->buffer.count * PAGE_SIZE - last->end < len)
		return false;
	stcp_buffer_copy(&last->buffer, last->end, &text->buffer, STCP_HEADER_LEN, len);
	last->end += len;
	return true;
}

/* The next frame was opened and has @len bytes of text. */
void stcp_text_add(struct stcp_session *e, u32 len)
{
	struct stcp_text *text = e->next;

	e->next = NULL;
	if (!len || stcp_text_join(e, text, len)) {
		stcp_text_free(text);
	} else {
		text->at = STCP_HEADER_LEN;
		text->end = text->at + len;
		list_add_tail(&text->list, &e->texts);
		e->held += stcp_text_held(text);
	}
	WRITE_ONCE(e->text_len, e->text_len + len);
	e->received += len;
}

/* Do the texts hold as much as a receive buffer would? Who only looks gets no more. */
bool stcp_texts_full(const struct stcp_session *e, const struct sock *isk)
{
	return e->held >= min_t(u32, STCP_MAX_QUEUED, READ_ONCE(isk->sk_rcvbuf));
}

static int stcp_text_copy(const struct stcp_text *text, u32 at, u32 len,
			  struct msghdr *msg, int flags)
{
	u32 part, copied, done = 0;
	const void *from;

	if (flags & MSG_TRUNC)
		return len;
	for (; done < len; at += part, done += part) {
		part = min_t(u32, len - done, PAGE_SIZE - offset_in_page(at));
		from = page_address(text->buffer.pages[at / PAGE_SIZE]) + offset_in_page(at);
		/* Not by page: a pipe would take ours, which no file stands behind. */
		copied = copy_to_iter(from, part, &msg->msg_iter);
		if (copied != part) {
			/* The next try begins with this text again. */
			iov_iter_revert(&msg->msg_iter, done + copied);
			return -EFAULT;
		}
	}
	return len;
}

static void stcp_text_took(struct stcp_session *e, struct stcp_text *text, u32 n)
{
	text->at += n;
	WRITE_ONCE(e->text_len, e->text_len - n);
	if (text->at < text->end)
		return;
	e->held -= stcp_text_held(text);
	list_del(&text->list);
	stcp_text_free(text);
}

/*
 * Read from the texts: at most @len bytes, behind @skip bytes that were peeked at.
 * Return: bytes or -EFAULT.
 */
int stcp_texts_read(struct stcp_session *e, u32 skip, u32 len, struct msghdr *msg,
		    int flags)
{
	struct stcp_text *text, *after;
	int n, done = 0;
	u32 have;

	list_for_each_entry_safe(text, after, &e->texts, list) {
		have = text->end - text->at;
		if (skip >= have) {
			skip -= have;
			continue;
		}
		if (done == len)
			break;
		n = stcp_text_copy(text, text->at + skip, min(have - skip, len - done),
				   msg, flags);
		skip = 0;
		if (n < 0)
			return done ?: n;
		done += n;
		if (!(flags & MSG_PEEK))
			stcp_text_took(e, text, n);
	}
	return done;
}
