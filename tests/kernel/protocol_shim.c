// SPDX-License-Identifier: GPL-2.0
/*
 * For LD_PRELOAD: stream sockets of IPv4 and IPv6 get the protocol number 253. A
 * program changes in nothing else.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/socket.h>

int socket(int family, int type, int protocol)
{
	int (*next)(int, int, int) = dlsym(RTLD_NEXT, "socket");
	int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;

	if ((family == AF_INET || family == AF_INET6) && (type & ~flags) == SOCK_STREAM &&
	    (protocol == 0 || protocol == IPPROTO_TCP))
		protocol = 253;
	return next(family, type, protocol);
}
