//! The demo guest on Seawall's machine: the reaction of its handler to each injected abort.

mod host;

use std::time::Duration;

use TaskState::{Alive, Killed, Lost};
use host::Run;
use seawall::{Containment, Now, Rules, StormGuard};
use seawall_events::{SeaExit, VcpuEvents};
use seawall_guest::{
    Access, Checksum, Counters, DemoOptions, Hole, HoleUnder, Image, KernelEnd, Layout, Place, Report,
    TaskState, bench, demo, demo_with,
};
use seawall_inject::Inject as _;
use seawall_machine::{Config, StorePolicy, Vcpu, Vm};

/// Contains an SEA, at the guest's own time: a step is a nanosecond.
fn contain(containment: &mut Containment, vcpu: &mut Vcpu<'_>, exit: &SeaExit) {
    let now = Now::new(0, Duration::from_nanos(vcpu.instructions()));
    assert_eq!(containment.contain(vcpu, &(*exit).into(), None, &now).unwrap().stop(), None);
}

/// The demo guest with poison at `places` from the time it is ready, SEAs contained by `policy`.
fn contained(policy: Rules, places: impl FnOnce(&Layout) -> Vec<Place>) -> (Report, Run) {
    let mut containment = Containment::new(policy);
    poisoned(places, |vcpu, exit| {
        contain(&mut containment, vcpu, exit);
    })
}

/// The same with SEAs replaced by these events.
fn injected(events: VcpuEvents, place: impl FnOnce(&Layout) -> Place) -> (Report, Run) {
    poisoned(
        |layout| vec![place(layout)],
        |vcpu, _| {
            vcpu.inject(&events).unwrap();
        },
    )
}

fn poisoned(
    places: impl FnOnce(&Layout) -> Vec<Place>,
    on_sea: impl FnMut(&mut Vcpu<'_>, &SeaExit),
) -> (Report, Run) {
    let image = demo();
    let places = places(&image.layout);
    let at_ready = |vm: &mut Vm| {
        for place in places {
            vm.poison(place.pa..place.pa + place.len).unwrap();
        }
    };
    let run = host::run(&image, Config::default(), at_ready, on_sea);
    println!("{}", run.console);
    let report = Report::parse(&run.console).unwrap();
    (report, run)
}

fn states(report: &Report) -> Vec<TaskState> {
    report.tasks.iter().map(|task| task.state).collect()
}

#[test]
fn clean_run_says_on_our_machine_what_it_says_on_qemu() {
    let run = host::run(&demo(), Config::default(), |_| {}, |_, _| panic!("no poison, no SEA"));
    assert_eq!(
        run.console,
        "\
[boot] EL1, MMU on, 4 tasks: web db batch log
[ready] every task has run a round
report: task=1 name=web state=alive rounds=64 checksum=ok
report: task=2 name=db state=alive rounds=64 checksum=ok
report: task=3 name=batch state=alive rounds=64 checksum=ok
report: task=4 name=log state=alive rounds=64 checksum=ok
report: kernel=ok retired=0 recovered=0 killed=0 seas=0 serrors=0
"
    );
}

/// The demo's two lines: one of web's code, one of db's data.
fn demo_story(layout: &Layout) -> Vec<Place> {
    let [web, db, ..] = layout.tasks;
    vec![web.work_line, Place { len: 64, ..db.data }]
}

#[test]
fn full_containment_loses_only_the_task_whose_data_is_gone() {
    let (report, run) = contained(Rules::FULL, demo_story);
    assert_eq!(report.kernel, KernelEnd::Ok);
    assert_eq!(states(&report), [Alive, Killed, Alive, Alive]);
    assert!(report.tasks.iter().all(|task| task.checksum == Checksum::Ok));
    assert_eq!(report.task("web").unwrap().rounds, 64);
    assert_eq!(report.counters, Some(Counters { retired: 2, recovered: 1, killed: 1, seas: 2, serrors: 0 }));
    let [fetch, load] = report.seas.as_slice() else { panic!("{:?}", report.seas) };
    assert_eq!(
        (fetch.task, fetch.access, fetch.esr, fetch.far),
        (1, Access::Fetch, 0x8200_0210, Some(0x40_1040))
    );
    assert_eq!((fetch.retired, fetch.clean), (Some(0x4009_9000), Some(0x400b_8000)));
    assert_eq!((load.task, load.access, load.esr, load.far), (2, Access::Load, 0x9200_0210, Some(0x41_0000)));
    assert_eq!((load.retired, load.clean), (Some(0x400a_2000), None));
    assert_eq!(run.exits.len(), 2);
}

#[test]
fn mainline_containment_loses_the_task_whose_code_could_have_been_saved() {
    let (report, _) = contained(Rules::MAINLINE, demo_story);
    assert_eq!(report.kernel, KernelEnd::Ok);
    assert_eq!(states(&report), [Killed, Killed, Alive, Alive]);
    assert_eq!(report.counters, Some(Counters { retired: 2, recovered: 0, killed: 2, seas: 2, serrors: 0 }));
    let [web, db] = report.seas.as_slice() else { panic!("{:?}", report.seas) };
    assert_eq!((web.task, web.access, web.esr, web.far), (1, Access::Load, 0x9200_0010, Some(0x40_1040)));
    assert_eq!((db.task, db.access, db.esr, db.far), (2, Access::Load, 0x9200_0010, Some(0x41_0000)));
}

#[test]
fn serror_loses_everything() {
    let (report, run) = contained(Rules::SERROR, demo_story);
    assert_eq!(report.kernel, KernelEnd::Panic);
    assert_eq!(states(&report), [Lost; 4]);
    assert_eq!(report.counters, Some(Counters { retired: 0, recovered: 0, killed: 0, seas: 0, serrors: 1 }));
    let [panic] = report.panics.as_slice() else { panic!("{:?}", report.panics) };
    assert_eq!((panic.reason.as_str(), panic.vector), ("SError that nobody asked for", 0x580));
    assert_eq!((panic.esr, panic.elr), (0xbf00_0000, 0x40_1040));
    assert_eq!(run.exits.len(), 1);
}

#[test]
fn poison_in_any_line_of_a_task_s_data_is_loaded_within_its_rounds_and_costs_that_task() {
    for n in 0..4 {
        for line in 0..128 {
            let (report, run) = contained(Rules::FULL, |layout| {
                let Place { pa, va, .. } = layout.tasks[n].data;
                vec![Place { pa: pa + 64 * line, va: va + 64 * line, len: 64 }]
            });
            let mut expected = [Alive; 4];
            expected[n] = Killed;
            assert_eq!(states(&report), expected);
            assert_eq!(report.seas.len(), 1);
            assert_eq!(report.seas[0].far.map(|far| far & !0x3f), Some(0x41_0000 + 64 * line));
            assert_eq!(run.exits.len(), 1);
        }
    }
}

#[test]
fn poison_in_any_line_of_text_that_runs_costs_nothing() {
    for n in 0..4 {
        for is_work in [false, true] {
            let (report, run) = contained(Rules::FULL, |layout| {
                let task = &layout.tasks[n];
                vec![if is_work { task.work_line } else { task.main_line }]
            });
            assert_eq!(states(&report), [Alive; 4]);
            assert!(report.tasks.iter().all(|task| task.rounds == 64 && task.checksum == Checksum::Ok));
            assert_eq!(report.counters.map(|counters| (counters.retired, counters.recovered)), Some((1, 1)));
            assert_eq!(run.exits.len(), 1);
        }
    }
}

#[test]
fn both_pages_of_every_text_can_be_lost() {
    let (report, run) = contained(Rules::FULL, |layout| layout.tasks.map(|task| task.text).to_vec());
    assert_eq!(states(&report), [Alive; 4]);
    assert!(report.tasks.iter().all(|task| task.rounds == 64 && task.checksum == Checksum::Ok));
    assert_eq!(report.counters, Some(Counters { retired: 8, recovered: 8, killed: 0, seas: 8, serrors: 0 }));
    assert_eq!(run.exits.len(), 8);
}

#[test]
fn text_lost_more_often_than_there_are_spare_frames_kills_the_task() {
    // The same PC and address each time, but another page, so not a storm.
    let mut containment = Containment::new(Rules::FULL).with_storm_guard(StormGuard::new(64, Duration::MAX));
    let mut spare = None;
    let image = demo();
    let spares = image.layout.spares;
    let web = image.layout.tasks[0].work_line;
    let at_ready = |vm: &mut Vm| {
        vm.poison(web.pa..web.pa + web.len).unwrap();
    };
    // Each spare frame that web gets goes bad in turn, as soon as web's old one was found bad.
    let run = host::run(&image, Config::default(), at_ready, |vcpu, exit| {
        contain(&mut containment, vcpu, exit);
        let next = spare.map_or(spares.pa, |last: u64| last + 0x1000);
        if spares.contains(next) {
            spare = Some(next);
            vcpu.vm_mut().poison(next + 0x40..next + 0x80).unwrap();
        }
    });
    println!("{}", run.console);
    let report = Report::parse(&run.console).unwrap();
    assert_eq!(states(&report), [Killed, Alive, Alive, Alive]);
    assert_eq!(
        report.counters,
        Some(Counters { retired: 17, recovered: 16, killed: 1, seas: 17, serrors: 0 })
    );
    assert_eq!(report.seas[16].text, "frame=0x400c7000 retired, no spare frame, task killed");
}

#[test]
fn poison_in_a_stack_is_popped_and_costs_the_task() {
    let (report, _) = contained(Rules::FULL, |layout| vec![layout.tasks[2].stack_line]);
    assert_eq!(states(&report), [Alive, Alive, Killed, Alive]);
    assert_eq!((report.seas[0].access, report.seas[0].far), (Access::Load, Some(0x42_0ff0)));
}

#[test]
fn poison_in_a_task_s_table_kills_it_and_retires_nothing() {
    let image = demo();
    let mut containment = Containment::new(Rules::FULL);
    let at_ready = |vm: &mut Vm| {
        let [_, db, ..] = image.layout.tasks;
        let l3 = db.text_descriptors;
        vm.poison(l3.pa..l3.pa + l3.len).unwrap();
    };
    let run = host::run(&image, Config::default(), at_ready, |vcpu, exit| {
        assert_eq!((exit.esr.bits() & 0x3f, exit.flags), (0x17, 0));
        contain(&mut containment, vcpu, exit);
    });
    println!("{}", run.console);
    let report = Report::parse(&run.console).unwrap();
    assert_eq!(states(&report), [Alive, Killed, Alive, Alive]);
    assert_eq!(report.counters, Some(Counters { retired: 0, recovered: 0, killed: 1, seas: 1, serrors: 0 }));
    assert_eq!((report.seas[0].esr & 0x3f, report.seas[0].retired), (0x17, None));
}

#[test]
fn poison_in_kernel_data_panics_and_ends() {
    let (report, _) = contained(Rules::FULL, |layout| vec![layout.kernel_data_line]);
    assert_eq!(report.kernel, KernelEnd::Panic);
    assert_eq!(states(&report), [Lost; 4]);
    let [first, second] = report.panics.as_slice() else { panic!("{:?}", report.panics) };
    assert_eq!(
        (first.reason.as_str(), first.vector, first.esr),
        ("external abort in the kernel", 0x200, 0x9600_0210)
    );
    assert_eq!(second.reason, "again while panicking");
    assert_eq!(report.counters, None);
}

#[test]
fn poison_in_the_vector_of_tasks_panics_the_kernel_with_an_instruction_abort() {
    let (report, _) = contained(Rules::FULL, |layout| vec![layout.vector_line]);
    assert_eq!(report.kernel, KernelEnd::Panic);
    assert_eq!(report.panics[0].esr, 0x8600_0210);
    assert_eq!(report.panics[0].far, 0xffff_ff80_4008_1400);
}

/// Events with a data abort (or instruction abort) of this ISS.
fn abort(is_instruction: bool, iss: u64) -> VcpuEvents {
    VcpuEvents {
        ext_dabt_pending: !is_instruction,
        ext_iabt_pending: is_instruction,
        ext_abt_has_esr: true,
        ext_abt_esr: iss,
        ..VcpuEvents::default()
    }
}

fn web_work(layout: &Layout) -> Place {
    layout.tasks[0].work_line
}

#[test]
fn abort_without_an_address_kills_the_task_and_retires_nothing() {
    for is_instruction in [true, false] {
        // FnV and EA.
        let (report, _) = injected(abort(is_instruction, 0x600), web_work);
        assert_eq!(states(&report), [Killed, Alive, Alive, Alive]);
        assert_eq!(
            report.counters,
            Some(Counters { retired: 0, recovered: 0, killed: 1, seas: 1, serrors: 0 })
        );
        assert_eq!((report.seas[0].far, report.seas[0].retired), (None, None));
    }
}

#[test]
fn uncontainable_abort_panics() {
    // SET = 0b10.
    let (report, _) = injected(abort(true, 0x1000), web_work);
    assert_eq!(states(&report), [Lost; 4]);
    assert_eq!(report.panics[0].reason, "uncontainable error");
    assert_eq!(report.panics[0].esr, 0x8200_1010);
}

#[test]
fn restartable_abort_is_handled_as_a_recoverable_one() {
    // SET = 0b11.
    let (report, _) = injected(abort(true, 0x1800), web_work);
    assert_eq!(states(&report), [Alive; 4]);
}

#[test]
fn abort_whose_status_is_no_external_abort_panics() {
    // 0x10 | 0x0f: an undefined status, 0x1f, is a parity error on a walk; 0x10 | 0x01 is a tag check fault.
    let (report, _) = injected(abort(true, 0x01), web_work);
    assert_eq!(states(&report), [Lost; 4]);
    assert_eq!(report.panics[0].reason, "abort that is not external");
    let (report, _) = injected(abort(true, 0x0f), web_work);
    assert_eq!(states(&report), [Killed, Alive, Alive, Alive]);
    assert_eq!(report.seas[0].text, "translation table lost, no frame retired, task killed");
}

#[test]
fn serror_beside_an_abort_is_taken_when_the_handler_unmasks_it() {
    let both =
        VcpuEvents { serror_pending: true, serror_has_esr: true, serror_esr: 0xc11, ..abort(true, 0x200) };
    let (report, _) = injected(both, web_work);
    assert_eq!(states(&report), [Lost; 4]);
    assert_eq!((report.panics[0].vector, report.panics[0].esr), (0x380, 0xbe00_0c11));
}

#[test]
fn lost_il_bit_panics() {
    let (report, _) = poisoned(
        |layout| vec![web_work(layout)],
        |vcpu, _| {
            vcpu.inject(&abort(true, 0x200)).unwrap();
            vcpu.set_reg(seawall_events::Reg::EsrEl1, 0x8000_0210).unwrap();
        },
    );
    assert_eq!(states(&report), [Lost; 4]);
    assert_eq!(report.panics[0].reason, "syndrome without IL");
}

#[test]
fn wrong_class_for_the_level_panics() {
    let (report, _) = poisoned(
        |layout| vec![web_work(layout)],
        |vcpu, _| {
            vcpu.inject(&abort(true, 0x200)).unwrap();
            vcpu.set_reg(seawall_events::Reg::EsrEl1, 0x8600_0210).unwrap();
        },
    );
    assert_eq!(states(&report), [Lost; 4]);
    assert_eq!(report.panics[0].reason, "unexpected synchronous exception");
}

#[test]
fn store_to_poison_waits_for_the_load_unless_stores_abort() {
    // log stores to a line before it loads it.
    for (store_policy, access, esr) in
        [(StorePolicy::Defer, Access::Load, 0x9200_0210), (StorePolicy::Abort, Access::Store, 0x9200_0250)]
    {
        let image = demo();
        let config = Config { store_policy, ..Config::default() };
        let mut containment = Containment::new(Rules::FULL);
        let data = image.layout.tasks[3].data.pa;
        let at_ready = |vm: &mut Vm| assert_eq!(vm.poison(data..data + 64), Ok(1));
        let run = host::run(&image, config, at_ready, |vcpu, exit| {
            contain(&mut containment, vcpu, exit);
        });
        let report = Report::parse(&run.console).unwrap();
        assert_eq!(states(&report), [Alive, Alive, Alive, Killed]);
        assert_eq!((report.seas[0].access, report.seas[0].esr), (access, esr));
    }
}

#[test]
fn holes_give_the_console_that_they_give_on_qemu() {
    let with_hole = |under| {
        let hole = Some(Hole { pa: 0x9000_0000, under });
        let image: Image = demo_with(&DemoOptions { rounds: 8, hole });
        host::run(&image, Config::default(), |_| {}, |_, _| panic!("no poison, no SEA")).console
    };
    assert!(with_hole(HoleUnder::Text(1)).contains(
        "[sea] task=1 esr=0x82000010 far=0x0000000000401040 fetch: frame=0x90000000 retired, clean=0x400b8000, nothing lost\n"
    ));
    assert!(with_hole(HoleUnder::Data(2)).contains(
        "[sea] task=2 esr=0x92000010 far=0x0000000000410000 load: frame=0x90000000 retired, task killed\n[task 2] db killed\n"
    ));
    assert!(with_hole(HoleUnder::Tables(3)).contains(
        "[sea] task=3 esr=0x82000017 far=0x0000000000400000 fetch: translation table lost, no frame retired, task killed\n"
    ));
    assert!(with_hole(HoleUnder::KernelData).ends_with("report: kernel=panic\n"));
}

#[test]
fn bench_loops_give_the_results_that_they_give_on_qemu() {
    let console = |image: &Image<bench::BenchLoop>| {
        host::run(image, Config::default(), |_| {}, |_, _| panic!("no poison, no SEA")).console
    };
    assert_eq!(
        console(&bench::alu_loop(1000)),
        "bench: alu_loop iterations=1000 result=0x19f429913fe9160a\n"
    );
    assert_eq!(
        console(&bench::load_store_loop(1000)),
        "bench: load_store_loop iterations=1000 result=0x1652dfdf16bb02a9\n"
    );
    let sea = console(&bench::sea_loop(1000, 0x9000_0000));
    assert_eq!(sea, "bench: sea_loop iterations=1000 seas=1000 esr=0x96000010\n");
}
