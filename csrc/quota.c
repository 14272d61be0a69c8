/* What the control groups of this process allow. */
#define _GNU_SOURCE /* strtok_r */
#include "fastrnn.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The processors' time that one control group may use a period, in processors, rounded up; 0 where it has no
 * limit. Version 2 has both figures in one file. */
static int group_quota(const char *folder)
{
    char path[4200];
    double quota = -1, period = 0;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    FILE *file = fopen(path, "r");
    if (file) {
        if (fscanf(file, "%lf %lf", &quota, &period) != 2) /* "max" */
            quota = -1;
        fclose(file);
    } else {
        const char *const names[] = {"quota", "period"};
        double *const figures[] = {&quota, &period};
        for (int i = 0; i < 2; i++) {
            snprintf(path, sizeof path, "%s/cpu.cfs_%s_us", folder, names[i]);
            file = fopen(path, "r");
            if (file && fscanf(file, "%lf", figures[i]) != 1)
                *figures[i] = -1;
            if (file)
                fclose(file);
        }
    }
    if (!(quota > 0 && period > 0))
        return 0;
    const double processors = ceil(quota / period);
    return processors < 1 << 20 ? (int)processors : 0;
}

int fastrnn_cpu_quota(const char *root)
{
    int min = 0;
    char path[4096], line[2048];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *const groups = fopen(path, "r");
    /* Lines are number:controllers:group; version 2 has one, with the number 0. A limit of a group holds for those in
     * it. In a container the group may be told as the host sees it: then only the top folder is there. */
    while (groups && fgets(line, sizeof line, groups)) {
        char *const controllers = strchr(line, ':'), *const group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group = '\0';
        group[1 + strcspn(group + 1, "\n")] = '\0';
        const int second = controllers[1] == '\0';
        char *rest, *name = strtok_r(controllers + 1, ",", &rest);
        while (name && strcmp(name, "cpu") != 0)
            name = strtok_r(NULL, ",", &rest);
        if (!second && !name)
            continue;
        snprintf(path, sizeof path, "%s/sys/fs/cgroup/%s%s", root, second ? "" : "cpu", group + 1);
        const size_t top = strlen(root) + strlen("/sys/fs/cgroup");
        for (;;) {
            const int quota = group_quota(path);
            if (quota && (!min || quota < min))
                min = quota;
            char *const slash = strrchr(path, '/');
            if (!slash || slash < path + top)
                break;
            *slash = '\0';
        }
    }
    if (groups)
        fclose(groups);
    return min;
}
