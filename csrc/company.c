/* When processors are taken, a team of several is no faster than one thread, and slows who took them. So what its
 * threads lost is counted; where it comes to a part of a processor, the next teams have so many threads fewer, and
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
    int max = company->max;
    if (!max || wanted <= max)
        return wanted;
    company->limits = 1;
    if (time >= company->again)
        max = max < wanted / 2 ? 2 * max : max + 1;
    return max < wanted ? max : wanted;
}

void company_saw(struct company *company, int threads, double wall, double lost, double time)
{
    const int max = company->max, trying = max && threads > max;
    struct company_sums *const sums = &company->sums[trying];
    sums->wall += wall;
    sums->lost += lost;
    sums->threads += wall * threads;
    if (sums->wall < long_enough)
        return;
    const double missing = sums->lost / sums->wall, had = sums->threads / sums->wall;
    if (company->pause < shortest_pause)
        company->pause = shortest_pause;
    if (missing >= part_of_a_processor) {
        const int left = (int)(had - missing);
        company->max = left < 1 ? 1 : left;
        const double pause = pause_over_try * (sums->wall < longest_try ? sums->wall : longest_try);
        company->again = time + (pause < company->pause ? company->pause : pause);
        company->pause = company->pause < longest_pause / 2 ? 2 * company->pause : longest_pause;
    } else {
        if (trying)
            company->max = threads;
        if (trying || !company->limits)
            company->pause /= 2;
    }
    company->limits = 0;
    if (company->max != max) /* what was at max that, and what was more */
        memset(company->sums, 0, sizeof company->sums);
    else
        memset(sums, 0, sizeof *sums);
}
