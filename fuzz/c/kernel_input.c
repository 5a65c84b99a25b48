/* The input of the fuzzers of the kernel module, as numbers and decisions. */
#include "kernel_harness.h"

u8 text_bytes[IN_SIZE + STCP_MAX_FRAME];
size_t input_left;
u32 refusals;

static const u8 *input;

void take_input(const u8 *data, size_t size)
{
	input = data;
	input_left = size;
	for (u32 i = 0, state = 1; !text_bytes[0] && i < sizeof(text_bytes); i++, state = state * 1664525 + 1013904223)
		text_bytes[i] = (u8)(state >> 24 | !i);
}

u8 byte(void)
{
	if (!input_left)
		return 0;
	input_left--;
	return *input++;
}

u32 amount(void)
{
	static const u32 common[] = {
		1, 2, 3, 4, 16, 19, 20, 21, 255, 4095, 4096, 4097, 8192, 20000, STCP_MAX_PLAINTEXT, STCP_MAX_PLAINTEXT + 3
	};
	u8 choice = byte();

	return choice < 16 ? common[choice] : choice < 252 ? choice : (u32)(choice - 251) * 9173;
}

bool input_refuses(void)
{
	bool refused = refusals & 1;

	refusals >>= 1;
	return refused;
}

/* A small quarantine: every run frees all that it took. */
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=4:malloc_context_size=2:detect_leaks=0";
}
