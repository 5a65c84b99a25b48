// SPDX-License-Identifier: GPL-2.0
/*
 * stcp: the kernel side of stcp-proxy. User space makes the handshake, then
 * hands both sockets of a connection over; from there on the kernel seals,
 * opens and relays. docs/KERNEL.md is the description, stcp.h the interface.
 *
 * The module cannot be unloaded while a socket has the protocol on: TCP holds
 * a reference for each, and close() gives it back (leg.c).
 */
#include <linux/module.h>

#include "sock_internal.h"

static int __init stcp_init(void)
{
	int err;

	BUILD_BUG_ON(sizeof(struct stcp_relay_args) != 128);
	BUILD_BUG_ON(sizeof(struct stcp_abort_args) != 264);
	BUILD_BUG_ON(sizeof(struct stcp_status) != 312);

	err = stcp_stat_init();
	if (err)
		return err;
	err = stcp_pump_init();
	if (err)
		goto err_stat;
	stcp_legs_init();
	err = stcp_socks_init();
	if (err)
		goto err_pump;
	err = tcp_register_ulp(&stcp_ulp_ops);
	if (err)
		goto err_socks;
#ifdef STCP_TEST_NULL_CIPHER
	pr_warn("stcp: built WITHOUT ENCRYPTION, for measurements only\n");
#endif
	return 0;

err_socks:
	stcp_socks_exit();
err_pump:
	stcp_pump_exit();
err_stat:
	stcp_stat_exit();
	return err;
}

static void __exit stcp_exit(void)
{
	tcp_unregister_ulp(&stcp_ulp_ops);
	stcp_socks_exit();
	stcp_pump_exit();
	stcp_stat_exit();
}

module_init(stcp_init);
module_exit(stcp_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("STCP/1 relay: authenticated encryption between two TCP sockets");
MODULE_VERSION("1");
MODULE_ALIAS_TCP_ULP(STCP_ULP_NAME);
MODULE_SOFTDEP("pre: aesni-intel gcm");
