// SPDX-License-Identifier: GPL-2.0
/*
 * Buffers: exactly one whole frame each.
 *
 * A direction holds a buffer only while bytes are in it, so a busy one takes
 * and returns it at every wake-up. To make that cheap each CPU keeps one spare.
 * The exchange needs no lock: whoever swaps the pointer out owns the buffer,
 * and migrating to another CPU between two steps only changes which spare it is.
 */
#include <linux/mm.h>
#include <linux/percpu.h>

#include "internal.h"

static DEFINE_PER_CPU(void *, stcp_spare);

u8 *stcp_buffer_get(void)
{
	void *buffer = this_cpu_xchg(stcp_spare, NULL);

	/* May fall back to vmalloc: 64 KiB in one piece can be hard to find. */
	return buffer ?: kvmalloc(STCP_MAX_FRAME, GFP_KERNEL | __GFP_NOWARN);
}

void stcp_buffer_put(u8 *buffer)
{
	/* KASAN watches a freed buffer, not a spare one. */
	if (IS_ENABLED(CONFIG_KASAN) ||
	    this_cpu_cmpxchg(stcp_spare, NULL, buffer))
		kvfree(buffer);
}

void stcp_buffer_exit(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		kvfree(per_cpu(stcp_spare, cpu));
}
