/* What the two files of the harness for kernel/ share. */
#ifndef KERNEL_HARNESS_H
#define KERNEL_HARNESS_H

#include "internal.h"
#include "toy_cipher.h"

enum { OUT_SIZE = 1 << 19 }; /* bytes that a leg may send in one run */

extern int stand_in_objects, stand_in_pages, stand_in_works;
bool run_a_work_item(unsigned int which);
bool skip_to_the_next_work_item(void);

/* kernel.c: whether the input has this allocation or send fail */
bool input_refuses(void);

#endif
