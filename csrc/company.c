/* When processors are taken, a team of several is no faster than one thread, and slows who took them. So what its
 * members lost is counted; where it comes to a part of a processor, the next teams have so many members fewer, and
 * more are tried again after a pause. Each time that this fails the pause is twice as long, and each time that as many
 * as were tried, or are wanted, have their processors half as long, within bounds; and it is some times as long as the
 * teams that have shown it, so that trying stays a small part of all. */
#include "company.h"

#include <string.h>

static const double long_enough = 0.005; /* seconds of teams that say something */
static const double part_of_a_processor = 0.25;
static const double shortest_pause = 0.01, longest_pause = 0.16;
static const double pause_over_try = 5, longest_try = 10; /* a process may have been stopped */

int company_allows(struct company *company, int wanted, double time)
{
    int most = company->most;
    if (!most || wanted <= most)
        return wanted;
    company->limits = 1;
    if (time >= company->again)
        most = most < wanted / 2 ? 2 * most : most + 1;
    return most < wanted ? most : wanted;
}

void company_saw(struct company *company, int members, double wall, double lost, double time)
{
    const int most = company->most, trying = most && members > most;
    struct company_sums *const sums = &company->sums[trying];
    sums->wall += wall;
    sums->lost += lost;
    sums->members += wall * members;
    if (sums->wall < long_enough)
        return;
    const double missing = sums->lost / sums->wall, had = sums->members / sums->wall;
    if (company->pause < shortest_pause)
        company->pause = shortest_pause;
    if (missing >= part_of_a_processor) {
        const int left = (int)(had - missing);
        company->most = left < 1 ? 1 : left;
        const double pause = pause_over_try * (sums->wall < longest_try ? sums->wall : longest_try);
        company->again = time + (pause < company->pause ? company->pause : pause);
        company->pause = company->pause < longest_pause / 2 ? 2 * company->pause : longest_pause;
    } else {
        if (trying)
            company->most = members;
        if (trying || !company->limits)
            company->pause /= 2;
    }
    company->limits = 0;
    if (company->most != most) /* what was at most that, and what was more */
        memset(company->sums, 0, sizeof company->sums);
    else
        memset(sums, 0, sizeof *sums);
}
