// SPDX-License-Identifier: GPL-2.0
/*
 * An owner: the party that a relay's memory is charged to and whose directions
 * share one line of the pump (pump.c).
 *
 * Two relays have the same owner when they were handed over from the same
 * memory cgroup by the same user. The user of a process in a user namespace is
 * the one who made the outermost namespace: a user cannot become many owners
 * by mapping many user ids.
 *
 * Owners are found at a handover, under a mutex, and freed with their last relay.
 */
#include <linux/cred.h>
#include <linux/memcontrol.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/user_namespace.h>

#include "internal.h"

static DEFINE_MUTEX(stcp_owners_mutex);
static LIST_HEAD(stcp_owners);

static unsigned int max_relays = 262144;
module_param(max_relays, uint, 0644);
MODULE_PARM_DESC(max_relays, "Most relays of one owner (memory cgroup and user)");

/* Whom the current process counts as: who made the outermost user namespace. */
kuid_t stcp_current_user(void)
{
	const struct user_namespace *ns = current_user_ns();
	kuid_t user = current_euid();

	for (; ns->parent; ns = ns->parent)
		user = ns->owner;
	return user;
}

static struct stcp_owner *stcp_owner_find(struct mem_cgroup *memcg, kuid_t user)
{
	struct stcp_owner *o;

	list_for_each_entry(o, &stcp_owners, all)
		if (o->memcg == memcg && uid_eq(o->user, user))
			return o;
	return NULL;
}

static struct stcp_owner *stcp_owner_add(struct stcp_owner *o, struct mem_cgroup *memcg,
					 kuid_t user)
{
	o->memcg = memcg;
	if (memcg)
		css_get(&memcg->css);
	o->user = user;
	INIT_LIST_HEAD(&o->line);
	INIT_LIST_HEAD(&o->turn);
	list_add(&o->all, &stcp_owners);
	return o;
}

static void stcp_owner_free_unused(struct stcp_owner *o)
{
	if (o->relays)
		return;
	list_del(&o->all);
	mem_cgroup_put(o->memcg);
	kfree(o);
}

/* The owner of a relay that the current process hands over, or an ERR_PTR(). */
struct stcp_owner *stcp_owner_get(void)
{
	/* Not under the mutex: a full cgroup would have everybody wait there. */
	struct stcp_owner *o, *spare = kzalloc(sizeof(*spare), GFP_KERNEL_ACCOUNT);
	kuid_t user = stcp_current_user();
	struct mem_cgroup *memcg;

	if (!spare)
		return ERR_PTR(-ENOMEM);
	memcg = get_mem_cgroup_from_mm(current->mm);
	mutex_lock(&stcp_owners_mutex);
	o = stcp_owner_find(memcg, user);
	if (!o) {
		o = stcp_owner_add(spare, memcg, user);
		spare = NULL;
	}
	if (o->relays >= READ_ONCE(max_relays)) {
		stcp_owner_free_unused(o);
		o = ERR_PTR(-EDQUOT);
	} else {
		o->relays++;
	}
	mutex_unlock(&stcp_owners_mutex);
	mem_cgroup_put(memcg);
	kfree(spare);
	return o;
}

void stcp_owner_put(struct stcp_owner *o)
{
	mutex_lock(&stcp_owners_mutex);
	o->relays--;
	stcp_owner_free_unused(o);
	mutex_unlock(&stcp_owners_mutex);
}
